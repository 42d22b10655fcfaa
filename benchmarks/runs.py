"""What benchmarks of training share: datasets of any size and vocabulary, and runs through the real pipeline."""

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import generate

if TYPE_CHECKING:
    from exmed_bert.data.dataset import PatientDataset


@dataclass(frozen=True)
class Model:
    """The sizes of a model and its batches."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    batch: int


DEMO = Model(layers=2, hidden=64, heads=2, feed_forward=128, batch=2)
PRODUCTION = Model(layers=6, hidden=288, heads=6, feed_forward=512, batch=16)


def make_datasets(folder: Path, patients: int, max_length: int) -> tuple["PatientDataset", "PatientDataset"]:
    """Generate and convert patients, four fifths of them for training; return both datasets."""
    from exmed_bert.data.convert import convert
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.settings import ConvertSettings

    source = folder / f"patients_{patients}.jsonl"
    if not source.exists():
        generate(source, patients)
    output = folder / f"dataset_{patients}_{max_length}.pt"
    made = convert(ConvertSettings(input=source, output=output, max_length=max_length))
    return PatientDataset.load(made.paths["train"]), PatientDataset.load(made.paths["val"])


def with_vocabulary(dataset: "PatientDataset", size: int) -> "PatientDataset":
    """Return the dataset with a vocabulary of about ``size`` codes: each code is split into as many variants.

    Which variant stands at a place follows from the place, so all occur and none means anything.
    """
    import torch

    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.data.randomness import mix
    from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary

    first, old = len(SPECIAL_TOKENS), dataset.info.vocabulary
    variants = max(round((size - first) / (len(old) - first)), 1)
    codes = dataset.columns["codes"].numpy().astype(np.int64)
    variant = (mix(np.arange(len(codes))) % np.uint64(variants)).astype(np.int64)
    split = np.where(codes < first, codes, first + (codes - first) * variants + variant)
    labels = (*SPECIAL_TOKENS, *(f"{name}#{i}" for name in old.tokens[first:] for i in range(variants)))
    entities = np.concatenate((old.entities[:first], old.entities[first:].repeat(variants)))
    info = replace(dataset.info, vocabulary=CodeVocabulary(labels, entities), novel_codes=())
    return PatientDataset(info, dataset.columns | {"codes": torch.from_numpy(split.astype(np.int32))})


def save(folder: Path, train: "PatientDataset", val: "PatientDataset") -> dict[str, Path]:
    """Write both datasets; return the settings that name them."""
    paths = {"training_data": folder / "train.pt", "validation_data": folder / "val.pt"}
    for path, dataset in zip(paths.values(), (train, val), strict=True):
        dataset.save(path)
    return paths


def pretrain(model: Model, folder: Path, **settings: Any) -> dict[str, float]:
    """Pretrain as the script does, silently and with rare reports, and return the metrics that the run leaves."""
    from exmed_bert.config import resolve
    from exmed_bert.settings import PretrainSettings
    from exmed_bert.training.pretrain import run

    rare = {"logging_steps": 50, "eval_steps": 10**9, "save_steps": 10**9, "forecast_prob": 0}  # masked codes alone
    sizes = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "intermediate_size": model.feed_forward,
        "train_batch_size": model.batch,
    }
    folders = {"output_dir": folder / "model", "output_data_dir": folder / "data", "overwrite": True}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run(resolve(PretrainSettings, rare | sizes | folders | settings))
    lines = (folder / "data" / "eval_results.txt").read_text(encoding="utf-8").splitlines()
    return {name: float(value) for name, value in (line.split(" = ") for line in lines)}
