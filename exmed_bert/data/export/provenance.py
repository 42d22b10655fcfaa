"""What an export says of its patients' origin, so that reading it back gives the dataset that the original gives.

That is known only as long as the patients are those that were exported: their files are compared with digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exmed_bert.files import fingerprint, read_json, write_json

FILE = Path("metadata", "exmed_bert.json")
SUBJECT_IDS = Path("metadata", "subject_ids.parquet")  # of the patients, in the order of the input
_FORMAT, _VERSION = "exmed_bert.export", 1
_KINDS = {"fingerprint": str, "generated": bool, "meta": dict, "own_record": bool, "static_columns": dict}


@dataclass(frozen=True)
class Provenance:
    """Where exported patients come from.

    Attributes:
        fingerprint: digest of the input, 32 hexadecimal digits.
        generated: whether our generator made the patients.
        meta: what the generator says of them, novel codes for one; {} for others.
        own_record: whether the input was our own record, of which the events of all code systems are kept.
        static_columns: by what stands before their values in the export, the names of the static columns.
    """

    fingerprint: str
    generated: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    own_record: bool = False
    static_columns: Mapping[str, str] = field(default_factory=dict)


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write the provenance into the folder of an export that is complete otherwise."""
    content: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
    content |= {name: getattr(provenance, name) for name in _KINDS}
    content["patients"] = {path.relative_to(folder).as_posix(): fingerprint(path) for path in _patient_files(folder)}
    content["files"] = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(folder / FILE, content)


def read_provenance(folder: Path) -> Provenance | None:
    """Return the provenance of an export of ours, None where there is none or the patients are no longer the same.

    Every file that holds patients is read, to compare its digest.

    Raises:
        InputError: the file that holds the provenance is not JSON.
    """
    content = _content(folder)
    if content is None:
        return None
    files = {path.relative_to(folder).as_posix(): path for path in _patient_files(folder)}
    if files.keys() != content["patients"].keys():
        return None
    if any(fingerprint(path) != content["patients"][name] for name, path in files.items()):
        return None
    return Provenance(**{name: content[name] for name in _KINDS})


def written_files(folder: Path) -> set[Path] | None:
    """Return the files that an export of ours consists of, relative to its folder; None where it is no such folder.

    Raises:
        InputError: the file that holds the provenance is not JSON.
    """
    content = _content(folder)
    return None if content is None else {FILE, *map(Path, content["files"])}


def data_files(folder: Path) -> list[Path]:
    """Return the files of rows of a MEDS dataset in the order of their shards: train/2 before train/10."""
    files = [path for path in (folder / "data").rglob("*.parquet") if not path.name.startswith(".")]
    return sorted(files, key=lambda path: (path.parent, not path.stem.isdigit(), path.stem.zfill(20)))


def _content(folder: Path) -> dict[str, Any] | None:
    if not (folder / FILE).is_file():
        return None
    content = read_json(folder / FILE)
    ours = isinstance(content, dict) and (content.get("format"), content.get("version")) == (_FORMAT, _VERSION)
    if not ours or not all(isinstance(content.get(name), kind) for name, kind in _KINDS.items()):
        return None
    return content if isinstance(content.get("patients"), dict) and isinstance(content.get("files"), list) else None


def _patient_files(folder: Path) -> list[Path]:
    """Return the files that hold the patients: what a reader reads."""
    return [*data_files(folder), *(path for path in [folder / SUBJECT_IDS] if path.is_file())]
