"""Embeddings of patients in a file: chunk by chunk, in one process or several, and on from where a run was killed."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.cohorts.label_file import label_source
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.config import Resolved
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.assembly import refuse_duplicates
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.decoding import decoded_chunks
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.data.reading_report import date_rows, reading_facts
from exmed_bert.data.shards import deciding_file, open_dataset, verify
from exmed_bert.embedding.histories import AGE, HistoryBuilder
from exmed_bert.embedding.maps import draw_map, write_projector
from exmed_bert.embedding.options import check, is_dataset
from exmed_bert.embedding.parts import PARTS, join_parts, part_path, write_part
from exmed_bert.embedding.pooling import Embedder, Network, Pooling
from exmed_bert.evaluation.small_cells import told_attrition
from exmed_bert.files import make_folder
from exmed_bert.locks import held
from exmed_bert.models.folder import FINETUNING, read_finetuned, read_pretrained, weight_files
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import EmbedSettings, listed
from exmed_bert.staging import staged_files
from exmed_bert.startup import called
from exmed_bert.training.failures import failures_explained
from exmed_bert.training.hardware import (
    StepShape,
    best_device,
    choose_attention,
    hardware_settings,
    on_best_device,
)
from exmed_bert.training.run_folder import run_identity
from exmed_bert.work_folder import work_folder

_NOT_IDENTITY = {"input", "output", "model_dir", "labels", "eval_batch_size", "min_cell"}
_NOT_IDENTITY |= {"projector", "map", "color_by", "max_points", "seed"}
AT_ONCE = CHUNK  # patients, a part of the file
_TOKENS = 30  # of a history, about, where the machine's settings are chosen


class Patients:
    """What is embedded: patients of any format, or datasets.

    Attributes:
        source: the patients; None for datasets.
        datasets: path and content of each, none for patients.
    """

    def __init__(self, settings: EmbedSettings, form: ModelInput) -> None:
        """Open the input.

        Raises:
            InputError: it cannot be read.
        """
        self.source: PatientInput | None = None
        self.datasets: list[tuple[Path, PatientDataset]] = []
        if all(map(is_dataset, settings.input)):
            self.datasets = [(path, open_dataset(path)) for path in settings.input]
        else:
            self.source = PatientInput(settings.input, settings, form.static_columns)

    @property
    def total(self) -> int | None:
        """The number of patients, None where it is not known beforehand."""
        return sum(len(dataset) for _, dataset in self.datasets) if self.datasets else None

    def chunks(self) -> Iterator[PatientColumns]:
        """Yield the patients as columns."""
        if self.source is not None:
            yield from self.source.quiet_chunks(AT_ONCE)
            self.source.check_any()
        for _, dataset in self.datasets:
            yield from decoded_chunks(dataset, AT_ONCE)

    def verify(self) -> None:
        """Look through datasets once.

        Raises:
            InputError: one is damaged.
        """
        for path, dataset in self.datasets:
            verify(path, dataset)

    def identity(self) -> Any:
        """Return what tells these patients from others."""
        if self.source is not None:
            return self.source.origin.fingerprint
        return [deciding_file(path) for path, _ in self.datasets]

    def cells(self, min_cell: int | None) -> MinCell:
        """Return which counts are hidden."""
        if self.source is not None:
            return self.source.cells
        return max((dataset.info.cells(min_cell) for _, dataset in self.datasets), key=lambda cells: cells.limit)


@failures_explained()
def run(resolved: Resolved[EmbedSettings]) -> None:
    """Write the embeddings, all of them or nothing.

    Raises:
        InputError, OptionError: the model or the patients cannot be read, no history is left, or the file cannot be
            written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    check(resolved.settings)
    with held(resolved.settings.output, called("embed")), _processes():
        _embed(resolved)


def _embed(resolved: Resolved[EmbedSettings]) -> None:
    settings, rank, processes = resolved.settings, *_place()
    network, form = read_network(settings.model_dir)
    if settings.color_by not in (names := [AGE, *(column.name for column in form.static_columns)]):
        raise OptionError(f"--color-by: {settings.color_by!r}, expected one of {', '.join(names)}")
    patients = Patients(settings, form)
    if rank == 0:
        patients.verify()
        if patients.source is not None:
            patients.source.announce()
    bf16, tree_rows = to_device(network, settings.precision), network.tree_rows
    embedder = Embedder(network, form, settings.pooling, settings.eval_batch_size, tree_rows)
    builder = HistoryBuilder(form, OwnLabels(settings.labels), settings.same_day == "include", rows=tree_rows)
    output = settings.output.absolute()
    place = output.with_name(f".{output.name}.embedding")
    config = network.config
    shape = StepShape(_TOKENS * settings.eval_batch_size, config.hidden_size, config.intermediate_size)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if rank == 0:
            identity = _identity(settings, patients, bf16)
            make_folder(output.parent)
            stack.enter_context(work_folder(place, identity, PARTS))
        stack.enter_context(hardware_settings(shape, "bf16" if bf16 else "fp32"))
        _wait()
        bar = console.progress(total=patients.total, label="Embedding", unit=" patients") if rank == 0 else None
        new = parts = 0
        for number, chunk in enumerate(patients.chunks()):
            histories, _ = builder.build(chunk)
            path = part_path(place, number)
            if number % processes == rank and not path.exists():
                write_part(path, histories, embedder.embed(histories, bf16))
                new += len(histories)
            parts += 1
            if bar is not None:
                bar.update(len(chunk))
        if bar is not None:
            bar.close()
        seconds = time.perf_counter() - start
        _wait()
        if rank == 0:
            paths = [part_path(place, number) for number in range(parts)]
            _finish(resolved, patients, builder, embedder.pooling, paths, new, seconds)
        _wait()


def _finish(
    resolved: Resolved[EmbedSettings],
    patients: Patients,
    builder: HistoryBuilder,
    pooling: Pooling,
    paths: list[Path],
    new: int,
    seconds: float,
) -> None:
    """Join the parts, draw what is asked for, and say where it is; in the first process."""
    settings, source = resolved.settings, patients.source
    if source is not None:
        source.warn()
        refuse_duplicates(source, np.concatenate(builder.hashes))
    if not builder.histories:
        counts = [f"{count:,} {what}" for what, count in builder.attrition]
        hint = [builder.task.hint] if builder.task.hint else []
        raise InputError(f"{listed(settings.input)}: nothing to embed: {'; '.join(counts + hint)}")
    cells = patients.cells(settings.min_cell)
    facts = {} if source is None else {"reading": reading_facts(source)}
    output, stem = settings.output, settings.output.with_suffix("").name
    written: list[tuple[str, Any]] = [("embeddings", output)]
    with staged_files(output.absolute().parent) as staged:
        sample = join_parts(paths, staged / output.name, settings.max_points, settings.seed)
        resolved.save(staged / f"{stem}.settings.json", **facts)
        if settings.map is not None:
            name = f"{stem}_{settings.map}.png"
            draw_map(staged / name, sample, settings.map, settings.color_by, cells, settings.seed)
            written.append(("map", output.with_name(name)))
        if settings.projector:
            name = f"{stem}_projector"
            write_projector(staged / name, sample)
            written.append(("projector", f"tensorboard --logdir {output.with_name(name)}"))
    rows: list[tuple[str, Any]] = [*told_attrition(builder.attrition, cells)]
    if source is not None:
        rows += date_rows(source.summary, settings.keep_implausible_dates, cells)
    unknown = builder.tokenizer.summary.unknown
    placed, as_unknown = cells.parts([builder.placed, unknown.kept])
    rows += [
        ("histories embedded", cells.count(builder.histories)),
        ("  cut to the latest codes that fit", cells.count(builder.tokenizer.summary.truncated)),
        ("events with codes that the model does not know", cells.count(unknown.kept + builder.placed)),
        ("  as the sum of their ancestors", placed),
        ("  as UNK", as_unknown),
        ("dimensions", sample.vectors.shape[1]),
        ("pooling", pooling),
    ]
    if new:
        rows.append(("histories per second", f"{new * _place()[1] / seconds:,.0f}"))
    console.table(f"Embedded {listed(settings.input)}", rows)
    console.table("Written", written)


def read_network(folder: Path) -> tuple[Network, ModelInput]:
    """Read a pretrained or a fine-tuned model, and its form of histories.

    Raises:
        InputError: as `folder.read_pretrained`.
    """
    if (folder / FINETUNING).is_file():
        tuned, form, _ = read_finetuned(folder)
        return tuned, form
    return read_pretrained(folder)


def to_device(network: Network, precision: str) -> bool:
    """Move a model to this process's GPU, if there is one; return whether bf16 is to be used.

    Raises:
        OptionError: bf16 is asked for on a GPU that lacks it.
    """
    bf16 = precision == "bf16"
    if torch.cuda.is_available():
        torch.cuda.set_device(best_device())
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if bf16 and not has_bf16:
            raise OptionError("--precision: this GPU does not compute bf16, use fp32")
        bf16 = has_bf16 if precision == "auto" else bf16
        on_best_device(network)
    network.set_attn_implementation(choose_attention(network.config, "bf16" if bf16 else "fp32").name)
    return bf16


def _identity(settings: EmbedSettings, patients: Patients, bf16: bool) -> dict[str, Any]:
    """Return what decides the parts."""
    files = {"model": weight_files(settings.model_dir)}
    chosen: dict[str, Any] = {"bf16": bf16}
    if patients.datasets:
        files["input"] = patients.identity()
    else:
        chosen["input"] = patients.identity()
    if settings.labels is not None:
        chosen["labels"] = label_source(settings.labels).fingerprint()
    return run_identity(settings, _NOT_IDENTITY, files, chosen)


# Several processes, as torchrun starts them -------------------------------------------------------------------------


def _place() -> tuple[int, int]:
    """Return the number of this process, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def _processes() -> Iterator[None]:
    """Connect the processes until the block ends."""
    if _place()[1] == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()  # gloo's threads can abort a process that exits with them open


def _wait() -> None:
    """Wait until all processes are here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
