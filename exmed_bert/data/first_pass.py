"""The first pass of a conversion: parts of the input become pieces of tokens, and codes are counted.

A part of the input is a file, where patients are whole in each file, or all of it. Parts are independent of each other:
processes work on several at once, and what they make is the same for any number of them. What the pass has made stays
until the conversion is complete, so that one that was killed goes on with what is missing. Workers load no torch here.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.codes import CodeKey
from exmed_bert.data.counting import from_plain, to_plain
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.pieces import ColumnKinds, select_piece, write_piece
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.splits import FROM_INPUT, InputSplit, SplitRule, needed_splits
from exmed_bert.data.static_columns import declared
from exmed_bert.data.tokenizer import Tokenizer, TokenizerSummary
from exmed_bert.data.translation import TranslationSummary
from exmed_bert.data.value_coding import ValueCoding, ValueCounts, value_counts
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.data.vocabulary_file import vocabulary_from
from exmed_bert.processes import worker_name
from exmed_bert.settings import ConvertSettings
from exmed_bert.staging import atomic_write

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Part:
    """A part of the input, to be read.

    Attributes:
        number: its place in the input.
        source: its files.
        settings: of the conversion.
        folder: for its pieces.
        today: the day on which the conversion began.
        values: what becomes of values; None while the cut points are not known.
    """

    number: int
    source: Source
    settings: ConvertSettings
    folder: Path
    today: date
    values: ValueCoding | None = None

    @property
    def result(self) -> Path:
        """The file that says what was read; it is written last."""
        return self.folder / f"part-{self.number:05}.json"

    @property
    def hashes(self) -> Path:
        """The file of the hashes of all patients read."""
        return hashes_path(self.folder, self.number)


def hashes_path(folder: Path, part: int) -> Path:
    """Return the file of the hashes of all patients in a part."""
    return folder / f"part-{part:05}.npy"


def piece_path(folder: Path, part: int, chunk: int, split: str) -> Path:
    """Return the file of a piece: the patients of a split in a chunk of a part."""
    return folder / f"part-{part:05}-{chunk:05}-{split}.npz"


@dataclass
class PartCounts:
    """What was met in a part of the input.

    Attributes:
        reading, translation, tokens: the summaries of reader, translator and tokenizer.
        excluded: patients that were read and belong to no split, by reason.
    """

    reading: ReadingSummary = field(default_factory=ReadingSummary)
    translation: TranslationSummary = field(default_factory=TranslationSummary)
    tokens: TokenizerSummary = field(default_factory=TokenizerSummary)
    excluded: Counter[str] = field(default_factory=Counter)


@dataclass
class PartResult:
    """What became of a part of the input.

    Attributes:
        number: its place in the input.
        counts: what was met.
        keys: the code of each provisional id above the special tokens.
        entities: the name of each provisional entity type.
        code_counts: tokens of each of `keys` in the pieces.
        kept: patients of each piece, by split, chunk after chunk.
        kinds: what the columns of each split have to hold.
        read: patients and events read.
        worker: the process that did it.
        seconds: how long it took.
        digests: of the bytes of each file, where they were in an object store.
        values: counts of values of the training patients, where cut points are to be made of them.
        is_coded: whether there are pieces; if not, the part is to be read again with cut points.
    """

    number: int
    counts: PartCounts
    keys: list[CodeKey]
    entities: list[str]
    code_counts: list[int]
    kept: dict[str, list[int]]
    kinds: dict[str, ColumnKinds]
    read: tuple[int, int]
    worker: str
    seconds: float = 0.0
    digests: list[str] = field(default_factory=list)
    values: ValueCounts = field(default_factory=Counter)
    is_coded: bool = True

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = {
            **vars(self),
            "counts": to_plain(self.counts),
            "kinds": {split: to_plain(kinds) for split, kinds in self.kinds.items()},
            "values": [[*key, count] for key, count in self.values.items()],
        }
        with atomic_write(path) as part:
            part.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "PartResult":
        """Read what `save` wrote.

        Raises:
            OSError, KeyError, TypeError, ValueError: it is missing or damaged.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        content["counts"] = from_plain(PartCounts, content["counts"])
        content["kinds"] = {split: from_plain(ColumnKinds, kinds) for split, kinds in content["kinds"].items()}
        content["keys"] = [(system, code) for system, code in content["keys"]]
        content["read"] = tuple(content["read"])
        content["values"] = Counter({tuple(key): count for *key, count in content["values"]})
        return cls(**content)


def read_part(part: Part, progress: Callable[[int], Any] = lambda patients: None) -> PartResult:
    """Read, translate and tokenize a part of the input, and write its pieces; the first pass.

    Of what is in an object store there is a copy on this machine for that time.

    Args:
        part: of the input.
        progress: called with the number of patients of each chunk.

    Raises:
        InputError: the part cannot be read, or a record is wrong.
    """
    start = time.perf_counter()
    with part.source.copied() as source:
        result = _read(part, source, progress)
        if part.source.stored is not None:
            result.digests = [source.digest(file) for file in source.files]
    result.seconds = time.perf_counter() - start
    result.save(part.result)
    return result


def _read(part: Part, source: Source, progress: Callable[[int], Any]) -> PartResult:
    settings = part.settings
    patients_of = PatientInput.of(source, settings, declared(settings.static_columns), part.today)
    tokenizer = Tokenizer(
        settings.max_length,
        settings.min_observations,
        settings.age_unit,
        known=None if settings.vocab_from is None else vocabulary_from(settings.vocab_from),
        static_columns=patients_of.static_columns,
        extend=takes_codes(settings),
        values=part.values,
    )
    found_values: ValueCounts = Counter()
    is_coded = True
    rule = split_rule(settings)
    hashes_seen: list[np.ndarray] = []
    kept: dict[str, list[int]] = {split: [] for split in SPLITS}
    counts, excluded = np.zeros(0, dtype=np.int64), Counter[str]()
    kinds = {split: ColumnKinds() for split in SPLITS}
    for chunk, patients in enumerate(patients_of.quiet_chunks()):
        read = len(patients)
        hashes = hash_patient_ids(patients.patient_ids)
        hashes_seen.append(hashes)
        if rule.from_input:
            patients, hashes = _in_a_split(patients, hashes, patients_of, excluded)
        trains = rule.trains_on(hashes, patients.splits)
        if makes_cuts(settings) and patients.events.measured is not None:
            found_values.update(value_counts(patients.events, trains))
            is_coded = part.values is not None
        if not is_coded:
            progress(read)
            continue
        tokens = tokenizer.encode(patients)
        in_train = trains[tokens.rows]
        for split, chosen in zip(SPLITS, (in_train, ~in_train), strict=True):
            piece = select_piece(patients, tokens, hashes, chosen)
            write_piece(piece_path(part.folder, part.number, chunk, split), piece)
            kept[split].append(len(piece["patient_hashes"]))
            kinds[split].note(piece)
            found = np.bincount(piece["codes"], minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        progress(read)
    np.save(part.hashes, np.concatenate([np.empty(0, dtype=np.int64), *hashes_seen]))
    counts = np.concatenate((counts, np.zeros(len(SPECIAL_TOKENS) + len(tokenizer.keys), dtype=np.int64)))
    return PartResult(
        part.number,
        PartCounts(patients_of.summary, patients_of.translation, tokenizer.summary, excluded),
        tokenizer.keys,
        tokenizer.entities,
        counts[len(SPECIAL_TOKENS) : len(SPECIAL_TOKENS) + len(tokenizer.keys)].tolist(),
        kept,
        kinds,
        patients_of.read,
        worker_name(),
        values=found_values,
        is_coded=is_coded,
    )


def takes_codes(settings: ConvertSettings) -> bool:
    """Tell whether the vocabulary takes the codes of the input; if not, it says what becomes of values, too."""
    return settings.vocab_from is None or settings.extend_vocab


def makes_cuts(settings: ConvertSettings) -> bool:
    """Tell whether the conversion makes cut points of values."""
    return settings.lab_values == "quantiles" and takes_codes(settings)


def split_rule(settings: ConvertSettings) -> SplitRule:
    """Return what decides the split of a patient."""
    return FROM_INPUT if settings.split_from == "input" else SplitRule(settings.seed, settings.train_ratio)


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
