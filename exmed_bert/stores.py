"""Object stores: places that are named by a URL such as ``s3://bucket/folder/``, read and written through fsspec.

Credentials are those of the environment, as each store's package finds them; they stand in no URL and no message.
"""

import errno
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from exmed_bert.console import InputError
from exmed_bert.files import digest, make_folder

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
_OTHERS = ("memory",)  # of fsspec itself
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/+)", re.IGNORECASE)  # one slash is what a Path leaves of two
_FILE = re.compile(r"file:/{1,3}(?=[^/])", re.IGNORECASE)
_USER = re.compile(r"(?<=//)[^/@\s]*:[^/@\s]*@")
_STAGING = ".being-written"
_HEAD = 1 << 16  # bytes of a file that show what it is: a header, a first record
_TAIL = 1 << 16  # bytes in which the schema of most Parquet files fits
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "checksum")  # of the content, as stores call it


class StorePath(PurePosixPath):
    """A place in an object store; its text is the URL.

    >>> str(StorePath("s3://bucket/folder") / "p.jsonl"), StorePath("s3://bucket/p.jsonl").with_name("q.jsonl").name
    ('s3://bucket/folder/p.jsonl', 'q.jsonl')
    """

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def inner(self) -> PurePosixPath:
        """The URL as a relative path: s3/bucket/folder."""
        scheme, *parts = self.parts
        return PurePosixPath(scheme.removesuffix(":"), *parts)


@dataclass(frozen=True)
class StoredFile:
    """A file in a store, as a listing tells it.

    Attributes:
        path: its URL.
        size: in bytes.
        mark: changes with the content: the store's checksum, or a digest of all that it says of the file.
    """

    path: StorePath
    size: int
    mark: str


def location(value: str | Path | StorePath) -> Path | StorePath:
    """Return a place on this machine or in a store; ``file:`` URLs are places on this machine.

    >>> location("file:///data/p.json").as_posix(), str(location("s3://bucket/p.json"))
    ('/data/p.json', 's3://bucket/p.json')

    Raises:
        InputError: the URL holds a password, or its scheme is not known.
    """
    if isinstance(value, StorePath):
        return value
    text = value.as_posix() if isinstance(value, Path) else value
    if _FILE.match(text):
        return Path(unquote(urlsplit(text).path))
    found = _URL.match(text)
    scheme = found[1].lower() if found else ""
    known = scheme in (*PACKAGES, *_OTHERS)
    if not found or not (known or len(found[2]) > 1):
        return Path(value)
    text = f"{scheme}://{text[found.end() :]}"
    if _USER.search(text):
        raise InputError(f"{safe(text)}: holds a user and a password, expected credentials in the environment alone")
    if not known:
        raise InputError(
            f"{safe(text.partition('?')[0])}: unknown kind of store '{scheme}', expected {', '.join(PACKAGES)}"
        )
    return StorePath(text)


def local(value: str | Path | StorePath) -> Path:
    """Return a place on this machine.

    Raises:
        InputError: it is in a store.
    """
    place = location(value)
    if isinstance(place, StorePath):
        raise InputError(f"{place}: is in an object store, which only conversions use; copy it to this machine first")
    return place


def safe(text: str) -> str:
    """Return a text without the users and passwords of its URLs.

    >>> safe("https://user:secret@host/bucket")
    'https://host/bucket'
    """
    return _USER.sub("", text)


def listing(path: StorePath) -> list[StoredFile]:
    """Return the file at a place, or those below it, or those that match a pattern, in order of their names.

    Raises:
        InputError: the store refuses.
    """
    found: dict[str, Any] = {}
    with _explained(path), suppress(FileNotFoundError):
        files = _connected(path)
        files.invalidate_cache()
        pattern = any(sign in str(path) for sign in "*?[")
        found = files.glob(str(path), detail=True) if pattern else files.find(str(path), detail=True)
    stored = []
    for name, about in found.items():
        if about.get("type") == "file" and not name.endswith("/"):
            mark = next((str(about[key]) for key in _MARKS if about.get(key)), "")
            mark = mark or digest(repr(sorted(about.items(), key=lambda item: item[0])).encode())
            stored.append(StoredFile(_with_scheme(path, name), int(about["size"]), mark))
    return sorted(stored, key=lambda file: file.path)


def fetch(file: StoredFile, target: Path) -> None:
    """Copy a file of a store.

    Raises:
        InputError: it cannot be read, or is not what the listing told.
    """
    make_folder(target.parent)
    with _explained(file.path):
        _connected(file.path).get_file(str(file.path), str(target))
    if target.stat().st_size != file.size:
        raise InputError(f"{file.path}: was changed while it was read; run the same command again")


def fetch_outlines(files: Mapping[Path, StoredFile], whole: Callable[[StoredFile], bool]) -> None:
    """Copy what tells of what kind files are: their beginning, of Parquet files the end too, and nothing between.

    The copies have the size of the files, and holes.

    Args:
        files: to be copied, by the path of the copy.
        whole: which files are copied as a whole.

    Raises:
        InputError: one cannot be read.
    """
    ranges: list[tuple[Path, StoredFile, int, int]] = []
    for target, file in files.items():
        if whole(file):
            fetch(file, target)
            continue
        make_folder(target.parent)
        with open(target, "wb") as copy:
            copy.truncate(file.size)
        ranges.append((target, file, 0, min(_HEAD, file.size)))
        if target.name.lower().endswith(".parquet"):
            ranges.append((target, file, max(file.size - _TAIL, 0), file.size))
    _fill(ranges)
    longer = []
    for target, file, start, end in ranges:
        if end == file.size and start > 0 and (first := file.size - _schema_size(target)) < start:
            longer.append((target, file, max(first, 0), file.size))
    _fill(longer)


def _schema_size(path: Path) -> int:
    """Return how many bytes at the end of a Parquet file its schema takes: a length and a signature are the last."""
    with open(path, "rb") as file:
        file.seek(-8, 2)
        last = file.read(8)
    return int.from_bytes(last[:4], "little") + 8 if last[4:] == b"PAR1" else 0


def _fill(ranges: Sequence[tuple[Path, StoredFile, int, int]]) -> None:
    """Copy ranges of bytes to the same place in files that exist, those of a store at once."""
    filled = [(target, file, start, end) for target, file, start, end in ranges if end > start]
    for scheme in dict.fromkeys(file.path.parts[0] for _, file, _, _ in filled):
        chosen = [one for one in filled if one[1].path.parts[0] == scheme]
        first = chosen[0][1].path
        with _explained(first):
            names = [str(file.path) for _, file, _, _ in chosen]
            starts, ends = [start for *_, start, _ in chosen], [end for *_, end in chosen]
            found = _connected(first).cat_ranges(names, starts, ends, on_error="raise")
        for (target, _, start, _), content in zip(chosen, found, strict=True):
            with open(target, "rb+") as copy:
                copy.seek(start)
                copy.write(content)


def check_writable(path: StorePath) -> None:
    """Refuse a place that `publish` could not write to; an empty file is written there and removed.

    Raises:
        InputError: so it is.
    """
    probe = path.with_name(f".{path.name}{_STAGING}") / "probe"
    with _explained(path):
        files = _connected(path)
        files.pipe_file(str(probe), b"")
    with suppress(Exception):
        files.rm(str(probe.parent), recursive=True)


def publish(folder: Path, target: StorePath, replaced: Sequence[str], last: str) -> None:
    """Copy a folder's files to a store so that they appear whole or not at all.

    They are all copied to a place beside the target first: until then, and where that fails, what stood at the target
    stays. Within the store they are moved into place, what describes the others last.

    Args:
        folder: whose files and folders are to stand in the target.
        target: a folder in a store; what is there and has no new file of its name stays.
        replaced: names in the folder that are replaced as a whole, with all that stood below them.
        last: name of the files that tell of the others: earlier ones go before any file is moved, new ones come last.

    Raises:
        InputError: the store refuses.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    inside.sort(key=lambda path: (path.parts[0] in replaced, path.name == last))
    staging = target / f"{_STAGING}-{digest(''.join(map(str, replaced)).encode())[:8]}"
    with _explained(target):
        files = _connected(target)
        try:
            for path in inside:
                files.put_file(str(folder / path), str(_below(staging, path)))
            files.invalidate_cache()
            old = {file.path for name in replaced for file in listing(target / name)}
            telling = {place for place in old if place.name == last}
            for place in telling:
                files.rm_file(str(place))
            for path in inside:
                files.cp_file(str(_below(staging, path)), str(_below(target, path)))
            for place in old - telling - {_below(target, path) for path in inside}:
                files.rm_file(str(place))
        finally:
            with suppress(Exception):
                files.rm(str(staging), recursive=True)
                files.invalidate_cache()


def names_below(path: StorePath) -> set[str]:
    """Return the names of the files below a place; "" is that of a file at the place itself.

    Raises:
        InputError: the store refuses.
    """
    return {"/".join(file.path.parts[len(path.parts) :]) for file in listing(path)}


def _below(folder: StorePath, path: Path) -> StorePath:
    return folder.joinpath(*path.parts)


def _with_scheme(path: StorePath, name: str) -> StorePath:
    """Return what a store names without its scheme as a URL."""
    return StorePath(f"{path.parts[0]}//{name.lstrip('/')}")


def _connected(path: StorePath) -> Any:
    """Return fsspec's file system of a URL.

    Raises:
        InputError: the package that it needs is not installed.
    """
    import fsspec

    scheme = path.parts[0].removesuffix(":")
    if package := PACKAGES.get(scheme):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(
                f"{path}: needs the package {package}, which is not installed: pip install {package}"
            ) from None
    return fsspec.core.url_to_fs(str(path))[0]


@contextmanager
def _explained(path: StorePath) -> Iterator[None]:
    """Turn what a store refuses into one line, without credentials."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: not found in the store, or its bucket is not") from None
    except PermissionError as error:
        raise InputError(f"{path}: the store refuses access: {_line(error)}") from None
    except Exception as error:  # each store has kinds of its own
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # it is about this machine
        if type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError", "CredentialUnavailableError"):
            raise InputError(f"{path}: the environment holds no credentials of the store") from None
        raise InputError(f"{path}: the store cannot be used: {_line(error)}") from None


def _line(error: Exception) -> str:
    return safe(" ".join(str(error).split())) or type(error).__name__
