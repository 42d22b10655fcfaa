"""From patients to tokens: visits in order, one token per code, the most recent visits that fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.data.patient import EventColumns, PatientColumns
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK, AgeUnit, CodeVocabulary, ages_on

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
class TokenizerSummary:
    """Counts of what the tokenizer met and excluded, for the user."""

    patients: int = 0
    too_short: int = 0
    truncated: int = 0
    unknown_codes: Counter[str] = field(default_factory=Counter)
    unknown_static: Counter[str] = field(default_factory=Counter)
    before_birth: int = 0


@dataclass(frozen=True)
class FinalIds:
    """The final id of each provisional one: of codes and of entity types, int32."""

    codes: np.ndarray
    entities: np.ndarray


class Tokenizer:
    """Tokenizes chunk after chunk of patients with provisional ids; `vocabulary` settles them at the end.

    The vocabulary is complete only when the last patient has been read, so each new code takes the next free id, and
    `vocabulary` returns the final one with the permutation that leads to it.
    """

    def __init__(
        self,
        max_length: int,
        min_observations: int,
        age_unit: AgeUnit,
        known: CodeVocabulary | None = None,
        static_columns: Sequence[StaticColumn] = BUILT_IN,
    ) -> None:
        """Set the limits.

        Args:
            max_length: most tokens per patient.
            min_observations: patients with fewer codes, not counting repetitions within a visit, are excluded.
            age_unit: unit of the age of a token.
            known: codes that have ids already, a model's; they keep them.
            static_columns: those that are encoded.
        """
        self.max_length = max_length
        self.min_observations = min_observations
        self.age_unit: AgeUnit = age_unit
        self.static_columns = tuple(static_columns)
        self.summary = TokenizerSummary()
        self._known = known or CodeVocabulary.build([])
        self._ids: dict[CodeKey, int] = {key: i for i, key in enumerate(self._known.keys) if key is not None}
        self._entities = {name: i for i, name in enumerate(self._known.entity_names)}

    def encode(self, patients: PatientColumns) -> TokenColumns:
        """Tokenize patients. A visit is a date; its codes keep the order of the record."""
        n, events = len(patients), patients.events
        table_codes, table_entities = self._provisional_ids(events)
        patient = events.patients()
        # Stable, so codes of a visit stay in the order of the record; quick, since most records are in order of time.
        order = np.argsort(patient * _DAY_SPAN + events.days, kind="stable")
        of_table = events.codes[order]
        code, entity = table_codes[of_table], table_entities[of_table]
        day, patient = events.days[order], patient[order]

        keep = _first_in_visit(code, entity, len(self._entities), _runs(patient, day))
        code, entity, day, patient = code[keep], entity[keep], day[keep], patient[keep]
        self.summary.patients += n
        lengths = np.bincount(patient, minlength=n)
        long_enough = lengths >= self.min_observations
        self.summary.too_short += int(n - long_enough.sum())
        self.summary.truncated += int((long_enough & (lengths > self.max_length)).sum())
        keep = long_enough[patient] & self._most_recent(patient, day, lengths)
        code, entity, day, patient = code[keep], entity[keep], day[keep], patient[keep]

        visit = _runs(patient, day)
        starts = np.flatnonzero(np.diff(visit, prepend=-1))  # first token of each visit
        visits = np.bincount(patient[starts], minlength=n)
        first_visit = np.cumsum(visits) - visits
        rows = np.flatnonzero(long_enough)
        return TokenColumns(
            codes=code,
            entities=entity,
            ages=self._ages(day, patients.birth_years[patient]),
            visit_ids=(visit - first_visit[patient] + 1).astype(np.int32),
            offsets=_offsets(np.bincount(patient, minlength=n)[rows]),
            visit_days=day[starts].astype(np.int32),
            visit_offsets=_offsets(visits[rows]),
            static={column.name: self._static_ids(column, patients, rows) for column in self.static_columns},
            rows=rows,
        )

    def vocabulary(self, used: np.ndarray) -> tuple[CodeVocabulary, FinalIds]:
        """Return the vocabulary of the codes in use, and the final id of each provisional one.

        Args:
            used: provisional ids that the tokenized patients hold.
        """
        in_use = set(used.tolist())
        vocabulary = CodeVocabulary.build(key for key, i in self._ids.items() if i in in_use)
        return vocabulary, self._final_ids(vocabulary)

    def extended_vocabulary(self) -> tuple[CodeVocabulary, FinalIds]:
        """Return the known vocabulary with the new codes at its end, and the final id of each provisional one."""
        new = list(self._ids)[len(self._known) - len(SPECIAL_TOKENS) :]
        vocabulary = self._known.extended(new)
        return vocabulary, self._final_ids(vocabulary)

    def _final_ids(self, vocabulary: CodeVocabulary) -> FinalIds:
        codes = np.full(len(SPECIAL_TOKENS) + len(self._ids), UNK, dtype=np.int32)
        codes[: len(SPECIAL_TOKENS)] = np.arange(len(SPECIAL_TOKENS))
        for key, token in zip(vocabulary.keys, range(len(vocabulary)), strict=True):
            if key is not None:
                codes[self._ids[key]] = token
        # Events of a system of which no code is known are UNK, of the default entity.
        entities = [max(_index(vocabulary.entity_names, name), 0) for name in self._entities]
        return FinalIds(codes, np.array(entities, dtype=np.int32))

    def _provisional_ids(self, events: EventColumns) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of each code of the table, UNK for what is no code of its system, and its entity types."""
        ids = np.full(len(events.table), UNK, dtype=np.int32)
        entities = np.zeros(len(events.table), dtype=np.int32)
        counts = np.bincount(events.codes, minlength=len(ids))
        systems = {name: code_system(name) for name in {name for name, _ in events.table}}
        for i in np.flatnonzero(counts).tolist():
            name, text = events.table[i]
            system = systems[name]
            entities[i] = self._entities.setdefault(system.entity, len(self._entities))
            code = system.normalize(text)
            if code is None:
                self.summary.unknown_codes[text] += int(counts[i])
            else:
                ids[i] = self._ids.setdefault((system.name, code), len(SPECIAL_TOKENS) + len(self._ids))
        return ids, entities

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

    def _ages(self, day: np.ndarray, birth_years: np.ndarray) -> np.ndarray:
        ages = ages_on(day, birth_years, self.age_unit)
        self.summary.before_birth += int((ages == UNK).sum())
        return ages


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


def _first_in_visit(code: np.ndarray, entity: np.ndarray, entities: int, visit: np.ndarray) -> np.ndarray:
    """Return the indices, in order, of the tokens that are no repetition of a code within their visit."""
    if len(code) == 0:
        return np.empty(0, dtype=np.int64)
    span = int(code.max()) + 1
    key = (visit * entities + entity) * span + code  # an UNK diagnosis and an UNK drug are two tokens
    in_order = np.sort(key)
    if (in_order[1:] != in_order[:-1]).all():  # the usual case, at a quarter of the price
        return np.arange(len(key))
    return np.sort(np.unique(key, return_index=True)[1])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
