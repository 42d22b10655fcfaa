"""Step 2: from a file of patients to the training and validation datasets."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.assembly import join_pieces, refuse_duplicates, select_piece
from exmed_bert.data.coverage import no_known_codes, unknown_rows, warn_of_unknown
from exmed_bert.data.dataset import DatasetInfo, PatientDataset
from exmed_bert.data.masking import IGNORED, VALIDATION_EPOCH, Masking, mask_batch
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import FROM_INPUT, InputSplit, SplitRule, needed_splits
from exmed_bert.data.static_columns import declared
from exmed_bert.data.tokenizer import Tokenizer, TokenizerSummary
from exmed_bert.data.vocabulary import MAX_AGE_YEARS, SPECIAL_TOKENS, UNK
from exmed_bert.data.vocabulary_file import vocabulary_from
from exmed_bert.files import atomic_write, make_folder, save_tensors
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import ConvertSettings

_STATIC_EPOCH = 0


@dataclass(frozen=True)
class Conversion:
    """What a conversion made of its input: the datasets by split, where they are, and what was met on the way."""

    source: PatientInput
    datasets: dict[str, PatientDataset]
    paths: dict[str, Path]
    summary: TokenizerSummary
    excluded: Counter[str]  # patients that the reader read and the tokenizer did not, by reason


def output_paths(output: Path, split: str) -> dict[str, Path]:
    """Return the file of each split that is to be written.

    >>> {split: path.name for split, path in output_paths(Path("synthetic.pt"), "all").items()}
    {'train': 'synthetic_train.pt', 'val': 'synthetic_val.pt'}
    """
    stem = output.with_suffix("") if output.suffix == ".pt" else output
    return {name: stem.with_name(f"{stem.name}_{name}.pt") for name in ("train", "val") if split in ("all", name)}


def convert(settings: ConvertSettings) -> Conversion:
    """Read, validate, encode and split the patients; write the datasets, each whole or not at all.

    Raises:
        InputError: the input is wrong, or a split would be empty.
    """
    paths = output_paths(settings.output, settings.split)
    for path in paths.values():
        make_folder(path.parent)

    rule = FROM_INPUT if settings.split_from == "input" else SplitRule(settings.seed, settings.train_ratio)
    static_columns = declared(settings.static_columns)
    source = PatientInput(settings.input, settings, static_columns)
    tokenizer = Tokenizer(
        settings.max_length,
        settings.min_observations,
        settings.age_unit,
        known=None if settings.vocab_from is None else vocabulary_from(settings.vocab_from),
        static_columns=static_columns,
        extend=settings.vocab_from is None or settings.extend_vocab,
    )
    pieces: dict[str, list[dict[str, np.ndarray]]] = {"train": [], "val": []}
    hashes_seen: list[np.ndarray] = []
    excluded: Counter[str] = Counter()
    bar = console.progress(label="Converting", unit=" patients")
    for patients in source.chunks():
        hashes = hash_patient_ids(patients.patient_ids)
        hashes_seen.append(hashes)
        if rule.from_input:
            patients, hashes = _in_a_split(patients, hashes, source, excluded)
        tokens = tokenizer.encode(patients)
        in_train = rule.trains_on(hashes, patients.splits)[tokens.rows]
        for split, chosen in (("train", in_train), ("val", ~in_train)):
            pieces[split].append(select_piece(patients, tokens, hashes, chosen))
        bar.update(len(patients))
    bar.close()
    refuse_duplicates(source, np.concatenate(hashes_seen))

    summary = tokenizer.summary
    if summary.patients and summary.events.read == sum(summary.unknown_codes.values()):
        raise no_known_codes(source, {}, summary.unknown_codes, source.summary.families)
    kept = {split: sum(len(piece["patient_hashes"]) for piece in parts) for split, parts in pieces.items()}
    for split in paths:
        if kept[split] == 0:
            found = [f"{count} patients {reason}" for reason, count in excluded.items()]
            found.append(
                f"{summary.patients} patients, {summary.too_short} of them with fewer than "
                f"{settings.min_observations} codes"
            )
            raise InputError(
                f"{source}: no patient is left for the {split} split: {', '.join(found)}; use more patients, or change "
                f"{'--split-from' if rule.from_input else '--train-ratio'} or --min-observations"
            )

    used = np.concatenate([np.unique(piece["codes"]) for parts in pieces.values() for piece in parts])
    if (used < len(SPECIAL_TOKENS)).all():
        raise InputError(
            f"{source}: of {summary.patients - summary.too_short:,} patients with at least "
            f"{settings.min_observations} codes none has one that is known, of the latest {settings.max_length}"
        )
    vocabulary, final = tokenizer.vocabulary(used)
    masking = Masking(
        mode="dynamic" if settings.dynamic_masking else "static",
        probability=settings.masked_lm_prob,
        max_masked=settings.max_masked,
        seed=settings.seed,
    )
    info: dict[str, Any] = {
        "max_length": settings.max_length,
        "age_unit": settings.age_unit,
        "masking": masking,
        "vocabulary": vocabulary,
        "static_columns": static_columns,
        "novel_codes": source.novel_codes,
        "input_fingerprint": source.origin.fingerprint,
        "split_seed": settings.seed,
        "train_ratio": settings.train_ratio,
        "split_from": settings.split_from,
        "min_cell": None if source.generated else source.cells.limit,
    }
    datasets = {}
    for split in paths:
        columns = join_pieces(pieces.pop(split), final, settings.max_length, settings.age_unit, len(vocabulary))
        dataset = PatientDataset(DatasetInfo(split=split, **info), columns)
        if masking.mode == "static":
            dataset = _with_static_masks(dataset, masking, VALIDATION_EPOCH if split == "val" else _STATIC_EPOCH)
        datasets[split] = dataset
    with ExitStack() as files:  # both files are renamed into place at the end, so that they always belong together
        for split, dataset in datasets.items():
            save_tensors(files.enter_context(atomic_write(paths[split])), dataset.to_dict())
    return Conversion(source, datasets, paths, summary, excluded)


def run(resolved: Resolved[ConvertSettings]) -> None:
    """Convert or export, save the settings beside what was written, and print what was made and left out."""
    settings = resolved.settings
    if settings.export is not None:
        from exmed_bert.data.export.run import export_patients  # with packages that nothing else needs

        export_patients(resolved, settings.export)
        return
    result = convert(settings)
    base = settings.output.with_suffix("") if settings.output.suffix == ".pt" else settings.output
    resolved.save(base.with_name(f"{base.name}.settings.json"))

    summary, cells = result.summary, result.source.cells
    any_dataset = next(iter(result.datasets.values()))
    excluded = result.source.summary.excluded + result.excluded
    excluded[f"fewer than {settings.min_observations} codes"] = summary.too_short
    left = [len(dataset) for dataset in result.datasets.values()]
    left.append(summary.patients - summary.too_short - sum(left))  # of the split that is not written
    rows: list[tuple[str, Any]] = [
        ("patients read", cells.total([*excluded.values(), *left])),
        *((f"excluded: {reason}", cells.count(count)) for reason, count in excluded.items()),
        (f"cut to the latest {settings.max_length} codes", cells.count(summary.truncated)),
        ("codes in the vocabulary", len(any_dataset.info.vocabulary) - len(SPECIAL_TOKENS)),
        ("masking", "dynamic" if settings.dynamic_masking else "static"),
        *((f"unknown {name}, kept as UNK", cells.count(count)) for name, count in summary.unknown_static.items()),
        *unknown_rows(
            summary,
            settings.max_length,
            sum(int(dataset.code_counts[UNK]) for dataset in result.datasets.values()),
            cells,
            settings.vocab_from,
        ),
    ]
    if summary.before_birth:
        name = f"codes before birth, age kept as UNK (0 to {MAX_AGE_YEARS} years are known)"
        rows.append((name, cells.count(summary.before_birth)))
    console.table(f"Converted {result.source}", rows)
    warn_of_unknown(result.source, {}, summary, cells)
    for split, dataset in result.datasets.items():
        size = result.paths[split].stat().st_size
        rows = [*_shown(dataset.stats(), cells), ("bytes per patient", round(size / len(dataset)))]
        console.table(f"{result.paths[split]}", rows)


def _shown(stats: dict[str, int | float | str], cells: MinCell) -> list[tuple[str, Any]]:
    """Return the counts of a dataset as they may be told; the longest history is one patient's."""
    told = {name: value for name, value in stats.items() if not (cells.limit and name.endswith("(max)"))}
    return [
        (name, cells.count(value) if isinstance(value, int) and name != "distinct codes" else value)
        for name, value in told.items()
    ]


def _in_a_split(
    patients: PatientColumns, hashes: np.ndarray, source: PatientInput, excluded: Counter[str]
) -> tuple[PatientColumns, np.ndarray]:
    """Return the patients that the input puts into one of the two splits, and their hashes; count the others."""
    splits = needed_splits(source, patients.splits, "--split-from input")
    for split, reason in ((InputSplit.HELD_OUT, "held out by the input"), (InputSplit.UNKNOWN, "in no split")):
        if count := int((splits == split).sum()):
            excluded[reason] += count
    rows = np.flatnonzero((splits == InputSplit.TRAIN) | (splits == InputSplit.TUNING))
    return patients.take(rows), hashes[rows]


def _with_static_masks(dataset: PatientDataset, masking: Masking, epoch: int) -> PatientDataset:
    """Draw the masks once and store what the model sees and where."""
    shown, masked = [], []
    for start in range(0, len(dataset), 4096):
        batch = dataset.batch(range(start, min(start + 4096, len(dataset))))
        inputs, labels = mask_batch(
            batch.codes, batch.lengths, batch.patient_hashes, masking, epoch, len(dataset.info.vocabulary)
        )
        real = np.arange(batch.codes.shape[1]) < batch.lengths[:, None]
        shown.append(inputs[real])
        masked.append((labels != IGNORED)[real])
    columns = {
        "shown_codes": torch.from_numpy(np.concatenate(shown)).to(dataset.columns["codes"].dtype),
        "masked": torch.from_numpy(np.concatenate(masked)),
    }
    return PatientDataset(dataset.info, dataset.columns | columns)
