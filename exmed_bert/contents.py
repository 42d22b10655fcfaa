"""The contents of a folder: size and digest of each of its files, written beside them and checked before they are used.

    contents.json    {"version": 2, "files": {"model.safetensors": {"bytes": 1234, "blake2b": "..."}}}

Earlier releases wrote ``{"model.safetensors": 1234}``; of these the sizes are checked, and whether the files open.
"""

import json
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from exmed_bert.files import fingerprint
from exmed_bert.staging import write_json

CONTENTS = "contents.json"
VERSION = 2


def write_contents(folder: Path, files: Iterable[Path] | None = None) -> None:
    """Record the files of a folder, those right in it or the given ones, by their names.

    The digests are taken as soon as the files are written: their bytes are still in memory.

    Raises:
        InputError: the record cannot be written.
    """
    chosen = sorted(folder.iterdir()) if files is None else files
    found = {path.name: _facts(path) for path in chosen if path.is_file() and path.name != CONTENTS}
    write_json(folder / CONTENTS, {"version": VERSION, "files": found})


def damage(folder: Path, names: Collection[str] | None = None) -> str | None:
    """Return the first file that is not as it was recorded and what is wrong with it, None where all are.

    Args:
        folder: with a contents.json.
        names: of the files to check; others are left alone. None checks all that were recorded.
    """
    try:
        content = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        recorded = _recorded(content)
    except FileNotFoundError:
        return f"{CONTENTS} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{CONTENTS} is damaged"
    if not recorded or any(Path(name).name != name for name in recorded):  # one may lie in another folder
        return f"{CONTENTS} is damaged"
    for name, facts in recorded.items():
        if (names is None or name in names) and (problem := _problem(folder / name, facts)):
            return f"{name} {problem}"
    return None


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "blake2b": fingerprint(path)}


def _recorded(content: Any) -> dict[str, dict[str, Any]]:
    if content.get("version") == VERSION and isinstance(content["files"], dict):
        return {
            str(name): {"bytes": int(facts["bytes"]), "blake2b": str(facts["blake2b"])}
            for name, facts in content["files"].items()
        }
    return {str(name): {"bytes": int(size)} for name, size in content.items()}


def _problem(path: Path, facts: dict[str, Any]) -> str | None:
    try:
        size = path.stat().st_size
        if size != facts["bytes"]:
            return f"has {size:,} bytes, expected {facts['bytes']:,}"
        if "blake2b" not in facts:
            return None if _opens(path) else "cannot be opened"
        if fingerprint(path) != facts["blake2b"]:
            return "does not match its digest"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _opens(path: Path) -> bool:
    """Tell what the formats themselves can tell: torch's are zip files with checksums, others begin with JSON."""
    try:
        if path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        if path.suffix == ".safetensors":
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                json.loads(file.read(min(length, path.stat().st_size)))
        if path.suffix == ".json":
            json.loads(path.read_bytes())
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RecursionError):
        return False
    return True
