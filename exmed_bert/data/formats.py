"""Kinds of files of patients, by the ends of their names."""

from pathlib import Path

from exmed_bert.console import InputError
from exmed_bert.files import existing_file

MANIFEST = "manifest.json"  # of a dataset that is a folder of shards
POPULATION_META = "population.meta.json"  # of generated patients that are a folder of shards
POPULATION_SETTINGS = "population.settings.json"
EXPORT = "exmed_bert.meta.json"  # what an export of ours says of its patients' origin
FORMATS = (".json", ".jsonl", ".jsonl.gz", ".parquet")


def file_format(path: Path) -> str:
    """Return the format that a file name asks for.

    >>> file_format(Path("data/p.jsonl.gz"))
    '.jsonl.gz'

    Raises:
        InputError: the extension is none of ours.
    """
    name = Path(path).name.lower()
    for extension in sorted(FORMATS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    raise InputError(f"{path}: unknown kind of file, expected one of {', '.join(FORMATS)}")


def existing_dataset(path: Path, hint: str) -> Path:
    """Return the path of a dataset, a file or a folder of shards, where it is there.

    Raises:
        InputError: it is missing, cannot be read, or is a folder of something else.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise InputError(f"{path}: is a folder without {MANIFEST}, expected a dataset; {hint}")
        return path
    return existing_file(path, hint)


def is_export(folder: Path) -> bool:
    """Tell whether an export of ours of another format than MEDS lies in a folder, changed or not."""
    return (folder / EXPORT).is_file()
