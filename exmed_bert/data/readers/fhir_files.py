"""Files of FHIR resources: which hold which type, and those of several types taken apart into lines of one."""

import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from exmed_bert import console
from exmed_bert.console import InputError, shown
from exmed_bert.data.bounded import open_bounded
from exmed_bert.data.readers.source import Source
from exmed_bert.garbage import no_garbage_collection

_LINES = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
_ENDINGS = (*_LINES, ".json", ".json.gz")
_PEEK = 1 << 16  # bytes of a file that are looked at to recognize it
_NAME = re.compile("[A-Z][A-Za-z]+")
_TYPE = re.compile(rb'"resourceType"\s*:\s*"([A-Z][A-Za-z]+)"')
_URN = "urn:uuid:"
_BUNDLE = "Bundle"
_BOM = b"\xef\xbb\xbf"

Resource = dict[str, Any]


@dataclass(frozen=True)
class ResourceFiles:
    """The files of FHIR in a source.

    Attributes:
        by_type: files with a resource of this type on each line, as bulk exports have them.
        mixed: Bundles, and lines of several types.
        not_read: types of resources that are not read.
        foreign: files that may be JSON, but hold no resources.
    """

    by_type: dict[str, list[Path]] = field(default_factory=dict)
    mixed: list[Path] = field(default_factory=list)
    not_read: set[str] = field(default_factory=set)
    foreign: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, types: Collection[str]) -> "ResourceFiles":
        """Look at the beginning of each file; its name decides only together with that.

        Args:
            source: the files.
            types: those that are read.
        """
        found = cls()
        for path in source.of_kind(*_ENDINGS):
            if path.stat().st_size == 0:  # bulk exports have such for types of which there is nothing
                continue
            kind, words = resource_type(path), _words(path)
            named = next((name for name in types if name.lower() in words), None)
            if path.name.lower().endswith(_LINES):
                if named and kind in (None, named):  # where the first line is damaged, reading says so
                    found.by_type.setdefault(named, []).append(path)
                    continue
                if kind and kind not in types and kind.lower() in words:
                    found.not_read.add(kind)
                    continue
            if kind:
                found.mixed.append(path)
            else:
                found.foreign.append(path)
        return found

    @property
    def used(self) -> list[Path]:
        """The files that are read, in the order of the source."""
        return sorted({*self.mixed, *(path for paths in self.by_type.values() for path in paths)})


def recognized(source: Source, types: Collection[str]) -> Path | None:
    """Return the first file that is known to hold FHIR by its beginning, or by its name: Condition.ndjson."""
    for path in source.of_kind(*_ENDINGS):
        is_bulk = path.name.lower().endswith((".ndjson", ".ndjson.gz"))
        if resource_type(path) or (is_bulk and _words(path) & {name.lower() for name in types}):
            return path
    return None


def resource_type(path: Path) -> str | None:
    """Return the type of the first resource in a file, None where its beginning shows none."""
    with open(path, "rb") as file:
        start = file.read(_PEEK)
    if path.name.lower().endswith(".gz"):
        try:  # of a damaged file, as much as there is
            start = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(start, _PEEK)
        except zlib.error:
            return None
    start = start.removeprefix(_BOM).lstrip()
    if start[:1] not in (b"{", b"["):
        return None
    try:  # a resource within the first may come before its own type
        return _type_of(orjson.loads(start.split(b"\n", 1)[0]))
    except orjson.JSONDecodeError:
        found = _TYPE.search(start)
        return found[1].decode() if found else None


def _type_of(value: Any) -> str | None:
    """Return the type of a resource, of a list that of its first one; None for other values."""
    while isinstance(value, list) and value:
        value = value[0]
    kind = value.get("resourceType") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) and _NAME.fullmatch(kind) else None


def _words(path: Path) -> set[str]:
    """Return the words in the name of a file and of its folder, in lower case: 1.Patient.ndjson, Patient/000.ndjson."""
    stem = path.name.lower().split(".ndjson")[0].split(".json")[0]
    return {*re.split(r"[^a-z]+", stem), path.parent.name.lower()}


def take_apart(files: ResourceFiles, fields: Mapping[str, Collection[str]], folder: Path) -> dict[str, int]:
    """Write the resources of the mixed files into ``folder``, ``<type>.ndjson`` each, file by file.

    References between the entries of a Bundle become those between resources.

    Args:
        files: those to take apart; types that are not read are added to ``files.not_read``.
        fields: of each type those that are read; others are left out.
        folder: an empty one.

    Returns:
        For each type how many files have resources of it.

    Raises:
        InputError: a file is damaged.
    """
    if not files.mixed:
        return {}
    sources: Counter[str] = Counter()
    with ExitStack() as stack, no_garbage_collection():
        written: dict[str, IO[bytes]] = {}
        for path in console.progress(files.mixed, label="Taking files apart", unit=" files"):
            here = set()
            for resource in _resources(path):
                kind = resource["resourceType"]
                if kind not in fields:
                    files.not_read.add(kind)
                    continue
                if kind not in written:
                    written[kind] = stack.enter_context(open(folder / f"{kind}.ndjson", "wb"))
                kept = {name: resource[name] for name in fields[kind] if name in resource}
                try:
                    written[kind].write(orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE))
                except orjson.JSONEncodeError:
                    raise InputError(f"{path}: holds a {kind} that is nested too deeply") from None
                here.add(kind)
            sources.update(here)
    return dict(sources)


def _resources(path: Path) -> Iterator[Resource]:
    """Yield the resources of a file, those of Bundles one by one."""
    try:
        with open_bounded(path) as file:
            lines = enumerate(file, start=1)
            first = next((line for _, line in lines if line.strip()), b"").removeprefix(_BOM)
            try:
                yield from _entries(orjson.loads(first), path)
            except orjson.JSONDecodeError:  # one value over many lines
                yield from _entries(orjson.loads(first + file.read()), path)
                return
            for number, line in lines:
                if not line.strip():
                    continue
                try:
                    yield from _entries(orjson.loads(line), path)
                except orjson.JSONDecodeError as error:
                    raise InputError(f"{path}: line {number}: is no JSON, or is cut short: {error.msg}") from None
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{path}: is no JSON, or is cut short: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply, expected Bundles of resources") from None


def _entries(value: Any, path: Path) -> Iterator[Resource]:
    """Yield a resource, or those in a Bundle or a list."""
    if isinstance(value, list):
        for one in value:
            yield from _entries(one, path)
        return
    if not _type_of(value):
        raise InputError(f"{path}: expected FHIR resources, got JSON without a resourceType")
    if value["resourceType"] != _BUNDLE:
        yield value
        return
    listed = value.get("entry") or []
    if not isinstance(listed, list):
        raise InputError(f"{path}: entry: {shown(listed)}, expected the list of a Bundle's entries")
    entries = [entry for entry in listed if isinstance(entry, dict) and entry.get("resource")]
    renamed: dict[str, str] = {}
    for entry in entries:
        url, resource = entry.get("fullUrl"), entry["resource"]
        if not isinstance(url, str) or not isinstance(resource, dict):
            continue
        own = resource.setdefault("id", url.removeprefix(_URN).rsplit("/", 1)[-1])
        if url.startswith(_URN) and url != _URN + str(own):
            renamed[url] = f"{resource.get('resourceType')}/{own}"
    for entry in entries:
        for resource in _entries(entry["resource"], path):
            if renamed:
                _rename(resource, renamed)
            yield resource


def _rename(resource: Resource, renamed: Mapping[str, str]) -> None:
    """Replace the references of a resource, which are one or two levels down in what is read of it."""
    for value in resource.values():
        for one in (value, value.get("reference")) if isinstance(value, dict) else ():
            if isinstance(one, dict) and isinstance(written := one.get("reference"), str):
                one["reference"] = renamed.get(written, written)


def bad_line(paths: Iterable[Path]) -> str | None:
    """Return which line is the first that is no resource, and what is wrong with it; None where all are resources."""
    for path in paths:
        with open_bounded(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and (problem := _problem(line.removeprefix(_BOM))):
                    return f"{path}: line {number}: {problem}"
    return None


def _problem(line: bytes) -> str | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"is no JSON, or is cut short: {error.msg}"
    if isinstance(value, dict) and value.get("resourceType"):
        return None
    return "expected a FHIR resource, got JSON without a resourceType"
