"""The options of sharing and exporting a model that can be checked before torch is imported."""

import importlib.util
from collections.abc import Collection
from pathlib import Path

from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import existing_dataset
from exmed_bert.files import check_writable, check_writable_file
from exmed_bert.settings import ExportSettings, ShareSettings
from exmed_bert.startup import called

_OF_ONNX = ("onnx", "onnxscript", "onnxruntime")


def check(settings: ShareSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: the model or the dataset is missing, or the copy cannot be written, or would be the
            model itself.
    """
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of a pretrained ExMed-BERT"
        )
    if settings.output_dir.resolve() == settings.model_dir.resolve():
        raise OptionError(f"--output-dir: {settings.output_dir} is the model itself, expected another folder")
    existing_dataset(settings.training_data, f"make it with: {called('convert')}")
    check_writable(settings.output_dir)


def check_export(settings: ExportSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: nothing is to be written, the model is missing or cannot be exported so, the output
            cannot be written, or a package is not installed.
    """
    folder = settings.model_dir
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: --model-dir: holds no config.json, expected the folder of an ExMed-BERT")
    if settings.hub_folder is None and settings.onnx is None:
        raise OptionError("--hub-folder, --onnx: none of them is given, expected what is to be written")
    if settings.hub_folder is not None:
        if settings.hub_folder.resolve() == folder.resolve():
            raise OptionError(f"--hub-folder: {settings.hub_folder} is the model itself, expected another folder")
        check_writable(settings.hub_folder)
    if settings.onnx is not None:
        if settings.onnx.suffix != ".onnx":
            raise OptionError(f"--onnx: {settings.onnx}, expected a name that ends in .onnx")
        if missing := [name for name in _OF_ONNX if importlib.util.find_spec(name) is None]:
            raise OptionError(f"--onnx: needs packages that are not installed; pip install {' '.join(missing)}")
        check_writable_file(settings.onnx)


def check_hub_folder(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that holds anything but an export: its owner uploads it as it is.

    Raises:
        InputError: so it is.
    """
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    if others := found - set(names):
        raise InputError(f"{folder}: holds {min(others)}, expected a new or empty folder, or one of an earlier export")
