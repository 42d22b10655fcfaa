"""What stands behind ``--input``: files and folders, and the tables that they hold."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from exmed_bert import files
from exmed_bert.console import InputError
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.readers.stored import META, Stored, called_by_url
from exmed_bert.stores import StorePath
from exmed_bert.swap import settle

TABLE_FORMATS = (".csv.gz", ".csv", ".tsv.gz", ".tsv", ".parquet")
_SHARD = re.compile(r"[._-]?(?:part|shard|chunk)?[._-]?\d*", re.IGNORECASE)  # a name that only numbers a shard
_SHARD_ENDING = re.compile(r"[._-](?:part|shard)?[._-]?\d+$", re.IGNORECASE)  # Patient.000, drug_exposure-part-1
_NOT_DATA = ("._", ".")  # what macOS and other tools leave beside files
_NO_DATA_FOLDERS = {"__MACOSX"}
_BESIDE = (META, ".settings.json")  # what our own steps write beside their files


@dataclass(frozen=True)
class Source:
    """Files of patients.

    Attributes:
        paths: as given.
        files: those at the paths and in their folders, in order of their names; hidden ones and ``__MACOSX`` are left
            out.
        stored: what is in object stores; paths and files are those of outlines then, to be read by `copied`.
        urls: of files that are copies.
    """

    paths: tuple[Path, ...]
    files: tuple[Path, ...]
    stored: Stored | None = field(default=None, compare=False)
    urls: Mapping[Path, StorePath] = field(default_factory=dict, compare=False)

    @classmethod
    def at(cls, paths: Sequence[Path], hint: str = "") -> "Source":
        """Return what is at the given paths; ``hint`` says how to make a file that is not there.

        Raises:
            InputError: a path is missing or cannot be read, or a folder is empty.
        """
        found: dict[Path, None] = {}
        for path in map(Path, paths):
            settle(path)
            if not path.is_dir():
                found[files.existing_file(path, hint)] = None
                continue
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_data(file.relative_to(path))]
            if not inside:
                raise InputError(f"{path}: is an empty folder, expected files of patients")
            found.update(dict.fromkeys(files.existing_file(file) for file in inside))
        return cls(tuple(map(Path, paths)), tuple(found))

    def absolute(self) -> "Source":
        """Return the same files by paths that hold in any process."""
        paths, found = (tuple(path.absolute() for path in of) for of in (self.paths, self.files))
        return replace(self, paths=paths, files=found)

    @classmethod
    def outlined(cls, paths: Sequence[Path | StorePath], outlines: Path, hint: str = "") -> "Source":
        """Return what is at places on this machine and in stores.

        Args:
            paths: the places.
            outlines: a folder for the outlines of files in stores.
            hint: says how to make a file that is not there.

        Raises:
            InputError: as `at` does, or a store refuses.
        """
        stored = Stored(outlines, tuple(paths))
        places: list[Path] = []
        found: dict[Path, None] = {}
        for path in paths:
            if not isinstance(path, StorePath):
                here = cls.at([path], hint)
                places.extend(here.paths)
                found.update(dict.fromkeys(here.files))
                continue
            at_path, below = stored.find(path)
            # As in a folder here, what is hidden is left out.
            inside = [file for file in below if file in at_path or _is_data(file.relative_to(outlines / path.inner))]
            inside = [file for file in inside if not file.name.endswith(META)]
            if not inside:
                raise InputError(f"{path}: is not in the store, or holds no files of patients")
            places.extend(at_path)
            found.update(dict.fromkeys(inside))
        stored.outline()
        return cls(tuple(places), tuple(found), stored)

    @contextmanager
    def copied(self) -> Iterator["Source"]:
        """Yield the same on this machine: files in stores are copied, and the copies removed at the end of the block.

        Raises:
            InputError: a file cannot be copied.
        """
        if self.stored is None:
            yield self
            return
        with TemporaryDirectory(prefix="exmed_bert_") as name, called_by_url(Path(name)):
            folder = Path(name)
            copies = tuple(self.stored.copy(file, folder) for file in self.files)
            for file in self.stored.metas:
                self.stored.copy(file, folder)
            urls = {self.stored.moved(file, folder): found.path for file, found in self.stored.files.items()}
            yield Source(tuple(self.stored.moved(path, folder) for path in self.paths), copies, urls=urls)

    def identity(self) -> list[list[str | int]]:
        """Return what changes with the content of a file, without reading it: its size, and its time or mark."""
        in_store = {} if self.stored is None else self.stored.files
        return [
            [str(found.path), found.size, found.mark]
            if (found := in_store.get(path))
            else [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            for path in self.files
        ]

    def place(self, file: Path) -> Path | StorePath:
        """Return where a file is for people: of a copy, where the file is in the store."""
        return self.urls.get(file, file)

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths if self.stored is None else self.stored.given))

    @property
    def name(self) -> str:
        """A short name, for titles."""
        given = self.paths if self.stored is None else self.stored.given
        return ", ".join(path.name or str(path) for path in given)

    @cached_property
    def tables(self) -> dict[str, tuple[Path, ...]]:
        """The files of each table, by its name in lower case.

        A table is a file, or the shards in a folder with its name, or files whose names differ in a number at the end.
        """
        return _by_table(self.files, TABLE_FORMATS)

    def columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns in lower case, none where there is no such table."""
        files_of_table = self.tables.get(table)
        return column_names(files_of_table[0]) if files_of_table else frozenset()

    def of_kind(self, *extensions: str) -> tuple[Path, ...]:
        """Return the files whose names end so, in any letter case."""
        return tuple(file for file in self.files if file.name.lower().endswith(extensions))

    def grouped(self, *extensions: str) -> dict[str, tuple[Path, ...]]:
        """Return the files whose names end so as `tables` does."""
        return _by_table(self.files, extensions)

    def fingerprint(self, used: Iterable[Path] | None = None) -> str:
        """Return a digest of the content of the files, 32 hexadecimal digits; of one file, that of its bytes."""
        digests = [self.digest(file) for file in (self.files if used is None else used)]
        return digests[0] if len(digests) == 1 else files.digest("".join(digests).encode())

    def digest(self, file: Path) -> str:
        """Return a digest of the bytes of a file, 32 hexadecimal digits; of one in a store, once it has been read."""
        if self.stored is not None and file in self.stored.files:
            return self.stored.digests[file]
        return files.fingerprint(file)


def _is_data(path: Path) -> bool:
    return (
        not path.name.startswith(_NOT_DATA)
        and not path.name.endswith(_BESIDE)
        and not any(part in _NO_DATA_FOLDERS or part.startswith(".") for part in path.parts[:-1])
    )


def _by_table(paths: Iterable[Path], extensions: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        ending = next((ending for ending in extensions if path.name.lower().endswith(ending)), None)
        if ending is None:
            continue
        stem = path.name[: -len(ending)]
        name = path.parent.name if _SHARD.fullmatch(stem) else _SHARD_ENDING.sub("", stem)
        found.setdefault(name.lower(), []).append(path)
    return {name: tuple(of_table) for name, of_table in found.items()}
