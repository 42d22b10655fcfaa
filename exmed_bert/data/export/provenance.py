"""What an export says of its patients' origin, so that it gives the dataset that the original gives.

That is known only as long as the patients are those that were exported: their files are compared with digests.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError
from exmed_bert.data.formats import EXPORT
from exmed_bert.data.origin import Origin
from exmed_bert.files import fingerprint, read_json
from exmed_bert.staging import write_json

FILE = Path("metadata", "exmed_bert.json")
BESIDE = Path(EXPORT)  # the same in exports of other formats
SUBJECT_IDS = Path("metadata", "subject_ids.parquet")  # of the patients, in the order of the input

_FORMAT, _VERSION = "exmed_bert.export", 1
_KINDS = {
    "fingerprint": str,
    "generated": bool,
    "meta": dict,
    "own_record": bool,
    "patients": dict,
    "files": list,
}


def write_provenance(folder: Path, origin: Origin, file: Path = FILE) -> None:
    """Write where the patients come from into the folder of an export that is complete otherwise.

    Args:
        folder: of the export.
        origin: of the patients.
        file: within the folder; FILE for MEDS, `BESIDE` for other formats.
    """
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": origin.fingerprint,
        "generated": origin.generated,
        "meta": origin.meta,
        "own_record": origin.own_record,
        "patients": {path.relative_to(folder).as_posix(): fingerprint(path) for path in _patient_files(folder, file)},
        "files": files,
    }
    write_json(folder / file, content)


def read_provenance(folder: Path, digest: Callable[[Path], str] = fingerprint) -> Origin | None:
    """Return where the patients of an export come from; None for other folders, and where the patients were changed.

    Every file that holds patients is read, to compare its digest.

    Args:
        folder: of the export.
        digest: of a file's bytes.

    Raises:
        InputError: the file that holds the provenance is not JSON.
    """
    file, content = _content(folder)
    if content is None:
        return None
    files = {path.relative_to(folder).as_posix(): path for path in _patient_files(folder, file)}
    if files.keys() != content["patients"].keys():
        return None
    if any(digest(path) != content["patients"][name] for name, path in files.items()):
        return None
    return Origin(content["fingerprint"], content["generated"], content["meta"], content["own_record"])


def written_files(folder: Path) -> set[Path] | None:
    """Return the files that an export consists of, relative to its folder; None where there is no export.

    Raises:
        InputError: the file that holds the provenance is not JSON.
    """
    file, content = _content(folder)
    return None if content is None else {file, *map(Path, content["files"])}


def provenance_file(folder: Path) -> Path | None:
    """Return the file that says where the patients of an export come from, None where there is none."""
    return next((folder / file for file in (FILE, BESIDE) if (folder / file).is_file()), None)


def check_export_folder(folder: Path) -> None:
    """Refuse to replace anything but an earlier export to which nothing was added.

    Raises:
        InputError: something else is there.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file, expected a folder")
    ours = written_files(folder)
    if ours is None:
        raise InputError(f"{folder}: is a folder with other files, expected a new folder or an earlier export")
    there = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    added = next((path for path in there if path not in ours), None)
    if added is not None:
        raise InputError(f"{folder}: holds {added}, which no export wrote, expected a new folder or an earlier export")


def _content(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the file that holds the provenance, and what it holds, None where it is of no export of ours."""
    path = provenance_file(folder)
    if path is None:
        return FILE, None
    file, content = path.relative_to(folder), read_json(path)
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (_FORMAT, _VERSION):
        return file, None
    return file, content if all(isinstance(content.get(name), kind) for name, kind in _KINDS.items()) else None


def _patient_files(folder: Path, file: Path) -> list[Path]:
    """Return the files that hold the patients."""
    if file == BESIDE:
        visible = (path for path in folder.rglob("*") if not path.name.startswith("."))
        return sorted(path for path in visible if path.is_file() and path.name != BESIDE.name)
    rows = [path for path in (folder / "data").rglob("*.parquet") if not path.name.startswith(".")]
    return [*sorted(rows), *(path for path in [folder / SUBJECT_IDS] if path.is_file())]
