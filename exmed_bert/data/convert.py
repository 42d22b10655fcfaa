"""Step 2: from a file of patients to the training and validation datasets."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.config import ConvertSettings, Resolved
from exmed_bert.console import InputError
from exmed_bert.data.dataset import DatasetInfo, PatientDataset
from exmed_bert.data.encoding import Encoder, EncodingSummary, TokenColumns
from exmed_bert.data.io import file_format, read_patients
from exmed_bert.data.masking import IGNORED, VALIDATION_EPOCH, Masking, mask_batch
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.randomness import patient_keys, uniform
from exmed_bert.data.vocabulary import MAX_AGE_YEARS, SPECIAL_TOKENS
from exmed_bert.files import fingerprint, make_folder, read_json, save_tensors, whole_file

_SPLIT_STREAM = 1  # keeps the numbers that decide the split apart from any others of the same seed
_STATIC_EPOCH = 0


@dataclass(frozen=True)
class Conversion:
    """What a conversion made: the datasets by split, where they are, and what was met on the way."""

    datasets: dict[str, PatientDataset]
    paths: dict[str, Path]
    summary: EncodingSummary


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

    encoder = Encoder(settings.max_length, settings.min_observations, settings.age_unit)
    pieces: dict[str, list[dict[str, np.ndarray]]] = {"train": [], "val": []}
    keys_seen: list[np.ndarray] = []
    bar = console.progress(label="Converting", unit=" patients")
    for patients in read_patients(settings.input):
        keys = patient_keys(patients.patient_ids)
        keys_seen.append(keys)
        tokens = encoder.encode(patients)
        in_train = uniform(settings.seed, _SPLIT_STREAM, keys[tokens.rows]) < settings.train_ratio
        for split, chosen in (("train", in_train), ("val", ~in_train)):
            pieces[split].append(_select(patients, tokens, keys, chosen))
        bar.update(len(patients))
    bar.close()
    _refuse_duplicates(settings.input, np.concatenate(keys_seen))

    kept = {split: sum(len(piece["keys"]) for piece in parts) for split, parts in pieces.items()}
    for split in paths:
        if kept[split] == 0:
            raise InputError(
                f"{settings.input}: no patient is left for the {split} split: {encoder.summary.patients} patients, "
                f"{encoder.summary.too_short} of them with fewer than {settings.min_observations} codes; "
                "use more patients, or change --train-ratio or --min-observations"
            )

    used = [np.unique(piece["codes"]) for parts in pieces.values() for piece in parts]
    vocabulary, final_id = encoder.vocabulary(np.concatenate(used))
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
        "novel_codes": _novel_codes(settings.input),
        "input_fingerprint": fingerprint(settings.input),
        "split_seed": settings.seed,
        "train_ratio": settings.train_ratio,
    }
    datasets = {}
    for split in paths:
        columns = _joined(pieces.pop(split), final_id, settings, len(vocabulary))
        dataset = PatientDataset(DatasetInfo(split=split, **info), columns)
        if masking.mode == "static":
            dataset = _with_static_masks(dataset, VALIDATION_EPOCH if split == "val" else _STATIC_EPOCH)
        datasets[split] = dataset
    with ExitStack() as files:  # both files are renamed into place at the end, so that they always belong together
        for split, dataset in datasets.items():
            save_tensors(files.enter_context(whole_file(paths[split])), dataset.to_dict())
    return Conversion(datasets, paths, encoder.summary)


def run(resolved: Resolved[ConvertSettings]) -> None:
    """Convert, save the settings beside the datasets, and print what was made and left out."""
    settings = resolved.settings
    result = convert(settings)
    base = settings.output.with_suffix("") if settings.output.suffix == ".pt" else settings.output
    resolved.save(base.with_name(f"{base.name}.settings.json"))

    summary = result.summary
    any_dataset = next(iter(result.datasets.values()))
    rows: list[tuple[str, Any]] = [
        ("patients read", summary.patients),
        (f"left out: fewer than {settings.min_observations} codes", summary.too_short),
        (f"cut to the latest {settings.max_length} codes", summary.truncated),
        ("codes in the vocabulary", len(any_dataset.info.vocabulary) - len(SPECIAL_TOKENS)),
        ("masking", any_dataset.info.masking.mode),
        ("unknown sex, kept as UNK", summary.unknown_sex),
        ("unknown state, kept as UNK", summary.unknown_state),
        ("events of no known code, kept as UNK", sum(summary.unknown_codes.values())),
    ]
    if summary.unknown_codes:
        most = ", ".join(f"{code!r} ({count:,})" for code, count in summary.unknown_codes.most_common(5))
        rows.append(("  most frequent of them", most))
    if summary.before_birth:
        rows.append(
            (f"codes before birth, age kept as UNK (0 to {MAX_AGE_YEARS} years are known)", summary.before_birth)
        )
    console.table(f"Converted {settings.input}", rows)
    for split, dataset in result.datasets.items():
        size = result.paths[split].stat().st_size
        stats = {**dataset.stats(), "bytes a patient": round(size / len(dataset))}
        console.table(f"{result.paths[split]}", stats.items())


def _select(
    patients: PatientColumns, tokens: TokenColumns, keys: np.ndarray, chosen: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns of the chosen patients; lengths stand for offsets until all pieces are joined."""
    rows = tokens.rows[chosen]
    lengths, visits = np.diff(tokens.offsets), np.diff(tokens.visit_offsets)
    of_token, of_visit = np.repeat(chosen, lengths), np.repeat(chosen, visits)
    ids = [patients.patient_ids[i] for i in rows.tolist()]
    return {
        "codes": tokens.codes[of_token],
        "entities": tokens.entities[of_token].astype(np.uint8),
        "ages": tokens.ages[of_token].astype(np.int16),
        "positions": tokens.positions[of_token].astype(np.int16),
        "visit_days": tokens.visit_days[of_visit],
        "lengths": lengths[chosen],
        "visits": visits[chosen],
        "keys": keys[rows],
        "birth_years": patients.birth_years[rows].astype(np.int16),
        "sexes": tokens.sexes[chosen],
        "states": tokens.states[chosen],
        "plos": patients.plos[rows],
        "ids": np.array(ids, dtype=object),
    }


def _joined(
    parts: list[dict[str, np.ndarray]], final_id: np.ndarray, settings: ConvertSettings, vocabulary_size: int
) -> dict[str, torch.Tensor]:
    """Join the pieces of a split into the columns of a dataset, in the smallest types that hold them."""

    def join(name: str) -> np.ndarray:
        return np.concatenate([part.pop(name) for part in parts])

    columns = {
        "offsets": np.concatenate(([0], np.cumsum(join("lengths")))),
        "visit_offsets": np.concatenate(([0], np.cumsum(join("visits")))),
        "codes": final_id[join("codes")].astype(np.int16 if vocabulary_size <= 2**15 else np.int32),
        "positions": join("positions").astype(np.uint8 if settings.max_length < 2**8 else np.int16),
        "ages": join("ages").astype(np.uint8 if settings.age_unit == "years" else np.int16),
        "visit_days": _smallest(join("visit_days")),
        **{name: join(name) for name in ("entities", "keys", "birth_years", "sexes", "states", "plos")},
        **_id_columns(join("ids").tolist()),
    }
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def _smallest(days: np.ndarray) -> np.ndarray:
    """Return days since 1970 as int16, which reaches from 1880 to 2059, or as they are."""
    fits = len(days) == 0 or (np.abs(days) < 2**15).all()
    return days.astype(np.int16) if fits else days


def _id_columns(ids: list[int | str]) -> dict[str, np.ndarray]:
    """Return ids as one column of integers or, where any is a string, as UTF-8 bytes with offsets."""
    if all(type(i) is int and -(2**63) <= i < 2**63 for i in ids):
        return {"id_numbers": np.array(ids, dtype=np.int64)}
    texts = [str(i).encode() for i in ids]
    return {
        "id_bytes": np.frombuffer(b"".join(texts), dtype=np.uint8).copy(),
        "id_offsets": np.concatenate(([0], np.cumsum([len(text) for text in texts]))),
    }


def _with_static_masks(dataset: PatientDataset, epoch: int) -> PatientDataset:
    """Draw the masks once and store what the model sees and where."""
    shown, masked = [], []
    for start in range(0, len(dataset), 4096):
        batch = dataset.__getitems__(range(start, min(start + 4096, len(dataset))))
        inputs, labels = mask_batch(
            batch.codes, batch.lengths, batch.keys, dataset.info.masking, epoch, len(dataset.info.vocabulary)
        )
        real = np.arange(batch.codes.shape[1]) < batch.lengths[:, None]
        shown.append(inputs[real])
        masked.append((labels != IGNORED)[real])
    columns = {
        "shown_codes": torch.from_numpy(np.concatenate(shown)).to(dataset.columns["codes"].dtype),
        "masked": torch.from_numpy(np.concatenate(masked)),
    }
    return PatientDataset(dataset.info, dataset.columns | columns)


def _refuse_duplicates(path: Path, keys: np.ndarray) -> None:
    distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if len(distinct) == len(keys):
        return
    row = int(first[counts > 1].min())
    second = int(np.flatnonzero(keys == keys[row])[1])
    patient_id = next(_ids_from(path, second))
    raise InputError(
        f"{path}: record {second + 1} (patient_id {patient_id!r}): patient_id: "
        f"is that of record {row + 1} too, expected each patient once"
    )


def _ids_from(path: Path, row: int) -> Iterator[int | str]:
    """Yield the patient ids of a file from row ``row`` on."""
    start = 0
    for patients in read_patients(path):
        yield from patients.patient_ids[max(row - start, 0) :]
        start += len(patients)


def _novel_codes(path: Path) -> tuple[str, ...]:
    """Return the codes that the generator invented, from the ``.meta.json`` beside its file; none for other files."""
    meta = path.with_name(path.name.removesuffix(file_format(path)) + ".meta.json")
    if not meta.is_file():
        return ()
    novel = read_json(meta).get("novel_codes", {})
    return tuple(sorted(novel))
