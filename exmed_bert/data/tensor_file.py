"""Files of tensors: opened without running anything, and read once as a whole for their checksums."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from exmed_bert.console import InputError
from exmed_bert.data.bounded import check_archive
from exmed_bert.files import existing_file


def open_tensors(path: Path, expected: str) -> Any:
    """Return what ``torch.save`` wrote; tensors stay on disk and are paged in as they are used.

    Args:
        path: the file.
        expected: what was expected in its place, for errors.

    Raises:
        InputError: it is missing, damaged, of another kind, or would execute code.
    """
    check_archive(existing_file(path))
    try:
        with warnings.catch_warnings():  # torch's about damage, which gets its line here
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is refused because it holds Python objects that opening it would run; {expected}"
        ) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever damage makes of the few lines of pickle that say where the tensors are
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: is damaged or no dataset ({said}); {expected}") from None


def check_checksums(path: Path) -> None:
    """Refuse a file of which a part has another checksum (CRC-32) than ``torch.save`` wrote; reads all of it.

    Raises:
        InputError: so it is.
    """
    try:
        with zipfile.ZipFile(path) as file:
            packed = next((entry for entry in file.infolist() if entry.compress_type != zipfile.ZIP_STORED), None)
            damaged = file.testzip() if packed is None else packed.filename
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is damaged: {error}; convert again") from None
    if damaged is not None:
        raise InputError(f"{path}: is damaged: {Path(damaged).name} is not what was written; convert again")
