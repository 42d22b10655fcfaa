"""From patients to tokens: visits in order, one token per code, the most recent visits that fit."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.data.ages import ages_on
from exmed_bert.data.patient import BIRTH_DATE, EventColumns, PatientColumns
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.value_coding import ValueCoding
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS, UNK, AgeUnit, CodeVocabulary

_DAY_SPAN = 2**23  # more than the days of the calendar, years 1 to 9999


@dataclass(frozen=True)
class TokenColumns:
    """N tokenized patients, one patient's tokens after another.

    Attributes:
        codes, entities, ages, visit_ids: (tokens,) int32: code id, entity type, age id, visit number from 1.
        offsets: (N + 1,) int64; patient i has the tokens ``offsets[i]:offsets[i + 1]``.
        visit_days: (visits,) int32, days since 1970-01-01 of each visit of each patient.
        visit_offsets: (N + 1,) int64 into ``visit_days``.
        static: by name of a static column (N,) ids.
        rows: (N,) int64, the index of each patient in the columns that were tokenized.
    """

    codes: np.ndarray
    entities: np.ndarray
    ages: np.ndarray
    visit_ids: np.ndarray
    offsets: np.ndarray
    visit_days: np.ndarray
    visit_offsets: np.ndarray
    static: dict[str, np.ndarray]
    rows: np.ndarray


@dataclass
class EventCounts:
    """The way from events to tokens: those read, less those left out for each reason, are the tokens kept.

    Attributes:
        read: events.
        repeated: repetitions of a code within a visit.
        excluded: of patients with too few codes.
        cut: earlier than the latest visits that fit.
    """

    read: int = 0
    repeated: int = 0
    excluded: int = 0
    cut: int = 0

    @property
    def kept(self) -> int:
        """The tokens."""
        return self.read - self.repeated - self.excluded - self.cut

    def add(self, read: int, distinct: int, included: int, kept: int) -> None:
        """Add events of which so many are left after each step."""
        self.read += read
        self.repeated += read - distinct
        self.excluded += distinct - included
        self.cut += included - kept


@dataclass
class TokenizerSummary:
    """Counts of what the tokenizer met and excluded, for the user.

    Attributes:
        patients, too_short, truncated: all of them, those excluded, and those whose history was cut.
        events: all of them.
        unknown: those that are read as UNK, `unknown_codes` and `not_in_vocabulary` alike.
        unknown_codes: events by code system and text, which is no code of that system.
        not_in_vocabulary: events by code system and code, which is not in a vocabulary that is not to be extended.
        unknown_static: patients by static column whose value is UNK.
        unknown_ages: tokens whose age is UNK: before birth, or on days that cannot be.
    """

    patients: int = 0
    too_short: int = 0
    truncated: int = 0
    events: EventCounts = field(default_factory=EventCounts)
    unknown: EventCounts = field(default_factory=EventCounts)
    unknown_codes: Counter[CodeKey] = field(default_factory=Counter)
    not_in_vocabulary: Counter[CodeKey] = field(default_factory=Counter)
    unknown_static: Counter[str] = field(default_factory=Counter)
    unknown_ages: int = 0


@dataclass(frozen=True)
class _CodeTable:
    """What the tokenizer makes of the codes of a table, (n,) each.

    Attributes:
        ids, entities: provisional ids, UNK for what is not known, and provisional entity types, int32.
        distinct: a number for each code, int32: two spellings of one code have the same, different unknown codes not.
        unknown: how many events have a code that is UNK.
    """

    ids: np.ndarray
    entities: np.ndarray
    distinct: np.ndarray
    unknown: int


@dataclass(frozen=True)
class FinalIds:
    """The final id of each provisional one: of codes and of entity types, int32."""

    codes: np.ndarray
    entities: np.ndarray


class Tokenizer:
    """Tokenizes chunk after chunk of patients with provisional ids; `final_ids` settles them at the end.

    The vocabulary is complete only when the last patient has been read, so each new code takes the next free id.
    """

    def __init__(
        self,
        max_length: int,
        min_observations: int,
        age_unit: AgeUnit,
        known: CodeVocabulary | None = None,
        static_columns: Sequence[StaticColumn] = BUILT_IN,
        extend: bool | Callable[[CodeKey], bool] = True,
        masks: bool = False,
        values: ValueCoding | None = None,
    ) -> None:
        """Set the limits.

        Args:
            max_length: most tokens per patient.
            min_observations: patients with fewer codes, not counting repetitions within a visit, are excluded.
            age_unit: unit of the age of a token.
            known: codes that have ids already, a model's; they keep them.
            static_columns: those that are encoded.
            extend: whether other codes get ids too, all or those of which it says so; if not, they are UNK.
            masks: whether ``MASK``, also with a number, stands for the token MASK; if not, it is an unknown code.
            values: what becomes of values; not given: what became of those that the known codes come from.
        """
        self.max_length = max_length
        self.min_observations = min_observations
        self.age_unit: AgeUnit = age_unit
        self.static_columns = tuple(static_columns)
        self.summary = TokenizerSummary()
        self._known = known or CodeVocabulary.build([])
        self._extend = extend
        self._masks = masks
        self._values = values or ValueCoding.of(self._known.cuts, self._known.keys)
        self._ids: dict[CodeKey, int] = {key: i for i, key in enumerate(self._known.keys) if key is not None}
        self._entities = {name: i for i, name in enumerate(self._known.entity_names)}

    def encode(self, patients: PatientColumns) -> TokenColumns:
        """Tokenize patients. A visit is a date; its codes keep the order of the record, each of them once.

        An unknown code is a token like others: two different ones of a visit are two UNK.
        """
        n, events = len(patients), self._values.apply(patients.events)
        table = self._code_table(events)
        patient = events.patients()
        # Stable, so codes of a visit stay in the order of the record; quick, since most records are in order of time.
        order = np.argsort(patient * _DAY_SPAN + events.days, kind="stable")
        code = events.codes[order]  # of the table
        day, patient = events.days[order], patient[order]
        doubtful = None if events.doubtful is None else events.doubtful[order]

        keep = _first_in_visit(table.distinct[code], _runs(patient, day))
        code, day, patient = code[keep], day[keep], patient[keep]
        doubtful = None if doubtful is None else doubtful[keep]
        self.summary.patients += n
        lengths = np.bincount(patient, minlength=n)
        long_enough = lengths >= self.min_observations
        self.summary.too_short += int(n - long_enough.sum())
        self.summary.truncated += int((long_enough & (lengths > self.max_length)).sum())
        included = long_enough[patient]
        keep = included & self._most_recent(patient, day, lengths)
        self.summary.events.add(len(order), len(code), int(included.sum()), int(keep.sum()))
        if table.unknown:
            is_unknown = (table.ids == UNK)[code]
            left = (is_unknown, is_unknown & included, is_unknown & keep)
            self.summary.unknown.add(table.unknown, *(int(which.sum()) for which in left))
        code, day, patient = code[keep], day[keep], patient[keep]
        doubtful = None if doubtful is None else doubtful[keep]

        visit = _runs(patient, day)
        starts = np.flatnonzero(np.diff(visit, prepend=-1))  # first token of each visit
        visits = np.bincount(patient[starts], minlength=n)
        first_visit = np.cumsum(visits) - visits
        rows = np.flatnonzero(long_enough)
        return TokenColumns(
            codes=table.ids[code],
            entities=table.entities[code],
            ages=self._ages(day, patients, patient, doubtful),
            visit_ids=(visit - first_visit[patient] + 1).astype(np.int32),
            offsets=_offsets(np.bincount(patient, minlength=n)[rows]),
            visit_days=day[starts].astype(np.int32),
            visit_offsets=_offsets(visits[rows]),
            static={column.name: self._static_ids(column, patients, rows) for column in self.static_columns},
            rows=rows,
        )

    @property
    def keys(self) -> list[CodeKey]:
        """The code of each provisional id, in their order, above the special tokens."""
        return list(self._ids)

    @property
    def entities(self) -> list[str]:
        """The name of each provisional entity type, in their order."""
        return list(self._entities)

    def extended_vocabulary(self) -> tuple[CodeVocabulary, FinalIds]:
        """Return the known vocabulary with all codes met at its end, and the final id of each provisional one."""
        new = list(self._ids)[len(self._known) - len(SPECIAL_TOKENS) :]
        vocabulary = self._known.extended(new)
        return vocabulary, final_ids(self.keys, self.entities, vocabulary)

    def _code_table(self, events: EventColumns) -> _CodeTable:
        """Look up each code of the table that events have, once."""
        ids = np.full(len(events.table), UNK, dtype=np.int32)
        entities = np.zeros(len(events.table), dtype=np.int32)
        distinct = np.zeros(len(events.table), dtype=np.int32)
        numbers: dict[tuple[str, str, bool], int] = {}
        counts = np.bincount(events.codes, minlength=len(ids))
        systems = {name: code_system(name) for name in {name for name, _ in events.table}}
        for i in np.flatnonzero(counts).tolist():
            name, text = events.table[i]
            system = systems[name]
            entities[i] = self._entities.setdefault(system.entity, len(self._entities))
            code = system.normalize(text)
            if self._masks and text.split(maxsplit=1)[:1] == [SPECIAL_TOKENS[MASK]]:
                ids[i] = MASK
                same = (system.name, text, False)
            elif code is None:
                self.summary.unknown_codes[system.name, text] += int(counts[i])
                same = (system.name, text.strip().casefold(), False)
            else:
                ids[i] = self._id((system.name, code), int(counts[i]))
                same = (system.name, code, True)
            distinct[i] = numbers.setdefault(same, len(numbers))
        return _CodeTable(ids, entities, distinct, int(counts[ids == UNK].sum()))

    def _id(self, key: CodeKey, events: int) -> int:
        """Return the provisional id of a code, which so many events have."""
        if key not in self._ids and not (self._extend(key) if callable(self._extend) else self._extend):
            self.summary.not_in_vocabulary[key] += events
            return UNK
        return self._ids.setdefault(key, len(SPECIAL_TOKENS) + len(self._ids))

    def _static_ids(self, column: StaticColumn, patients: PatientColumns, rows: np.ndarray) -> np.ndarray:
        values = patients.static.get(column.name)
        ids = np.full(len(rows), UNK, dtype=np.uint8) if values is None else column.ids(values)[rows]
        self.summary.unknown_static[column.name] += int((ids == UNK).sum())
        return ids

    def _most_recent(self, patient: np.ndarray, day: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return which tokens stay when each patient keeps the most recent whole visits that fit.

        A last visit that is longer than the limit keeps its first codes.
        """
        end = np.cumsum(lengths)[patient]  # one past the patient's last token
        visit = _runs(patient, day)
        starts = np.flatnonzero(np.diff(visit, prepend=-1))
        from_visit = end - starts[visit]  # tokens from the start of this visit to the patient's end
        in_last_visit = np.append(starts[1:], len(patient))[visit] == end
        place_in_visit = np.arange(len(patient)) - starts[visit]
        return (from_visit <= self.max_length) | (in_last_visit & (place_in_visit < self.max_length))

    def _ages(
        self, day: np.ndarray, patients: PatientColumns, patient: np.ndarray, doubtful: np.ndarray | None
    ) -> np.ndarray:
        ages = ages_on(day, patients.birth_years[patient], patients.period(BIRTH_DATE)[patient], self.age_unit)
        if doubtful is not None:
            ages[doubtful] = UNK
        self.summary.unknown_ages += int((ages == UNK).sum())
        return ages


def final_ids(
    keys: Sequence[CodeKey],
    entities: Sequence[str],
    vocabulary: CodeVocabulary,
    stand_ins: Mapping[CodeKey, CodeKey | None] | None = None,
) -> FinalIds:
    """Return the final id of each provisional one.

    Args:
        keys: the code of each provisional id above the special tokens.
        entities: the name of each provisional entity type.
        vocabulary: gives the final ids; a code that is not in it becomes UNK.
        stand_ins: what stands for a code that is not itself to be in the vocabulary, None for UNK.
    """
    stand_ins = stand_ins or {}
    places = {key: token for token, key in enumerate(vocabulary.keys) if key is not None}
    found = (places.get(stand_ins.get(key, key), UNK) for key in keys)  # type: ignore[arg-type]
    codes = [*range(len(SPECIAL_TOKENS)), *found]
    # Events of a system of which no code is known are UNK, of the default entity.
    types = [max(_index(vocabulary.entity_names, name), 0) for name in entities]
    return FinalIds(np.array(codes, dtype=np.int32), np.array(types, dtype=np.int32))


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def _runs(*keys: np.ndarray) -> np.ndarray:
    """Number the runs of equal neighbors, from 0."""
    if len(keys[0]) == 0:
        return np.empty(0, dtype=np.int64)
    changes = np.zeros(len(keys[0]), dtype=bool)
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.cumsum(changes)


def _first_in_visit(code: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Return the indices, in order, of the events that are no repetition of a code within their visit."""
    if len(code) == 0:
        return np.empty(0, dtype=np.int64)
    key = visit * (int(code.max()) + 1) + code
    ascending = np.sort(key)
    if (ascending[1:] != ascending[:-1]).all():  # the usual case, at a quarter of the price
        return np.arange(len(key))
    return np.sort(np.unique(key, return_index=True)[1])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
