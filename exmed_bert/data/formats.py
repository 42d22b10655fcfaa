"""Kinds of files of patients, by the ends of their names."""

from pathlib import Path

from exmed_bert.console import InputError

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
