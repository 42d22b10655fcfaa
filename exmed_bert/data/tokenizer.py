"""From patients to tokens: visits in order, one token a code, the most recent visits that fit."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from exmed_bert import codes
from exmed_bert.data.patient import EventColumns, PatientColumns
from exmed_bert.data.vocabulary import (
    ENTITY_ID,
    SPECIAL_TOKENS,
    UNK,
    AgeUnit,
    CodeVocabulary,
    age_ids,
    label,
    sex_id,
    state_id,
)

_DAY_SPAN = 2**23  # more than the days of the calendar, years 1 to 9999


@dataclass(frozen=True)
class TokenColumns:
    """N encoded patients, one patient's tokens after another.

    Attributes:
        codes, entities, ages, positions: (tokens,) int32: code id, entity type, age id, visit number from 1.
        offsets: (N + 1,) int64; patient i has the tokens ``offsets[i]:offsets[i + 1]``.
        visit_days: (visits,) int32, days since 1970-01-01 of each visit of each patient.
        visit_offsets: (N + 1,) int64 into ``visit_days``.
        sexes, states: (N,) uint8 ids.
        rows: (N,) int64, the index of each patient in the columns it was encoded from.
    """

    codes: np.ndarray
    entities: np.ndarray
    ages: np.ndarray
    positions: np.ndarray
    offsets: np.ndarray
    visit_days: np.ndarray
    visit_offsets: np.ndarray
    sexes: np.ndarray
    states: np.ndarray
    rows: np.ndarray


@dataclass
class EncodingSummary:
    """What encoding met and left out, for the user."""

    patients: int = 0
    too_short: int = 0
    truncated: int = 0
    unknown_codes: Counter[str] = field(default_factory=Counter)
    unknown_sex: int = 0
    unknown_state: int = 0
    before_birth: int = 0


class Encoder:
    """Encodes chunk after chunk of patients with provisional code ids; `vocabulary` settles them at the end.

    The vocabulary is complete only when the last patient has been read, so each new code takes the next free id, and
    `vocabulary` returns the final one with the permutation that leads to it.
    """

    def __init__(
        self, max_length: int, min_observations: int, age_unit: AgeUnit, known: CodeVocabulary | None = None
    ) -> None:
        """Set the limits.

        Args:
            max_length: most tokens of a patient.
            min_observations: a patient with fewer codes, not counting repetitions within a visit, is left out.
            age_unit: unit of the age of a token.
            known: codes that have ids already, a model's; they keep them.
        """
        self.max_length = max_length
        self.min_observations = min_observations
        self.age_unit: AgeUnit = age_unit
        self.summary = EncodingSummary()
        self._known = known
        self._ids: dict[tuple[str, str], int] = {}
        if known is not None:
            systems = enumerate(known.systems())
            self._ids = {(system, known.code(token)): token for token, system in systems if system is not None}

    def encode(self, patients: PatientColumns) -> TokenColumns:
        """Encode patients. A visit is a date; its codes keep their order, diagnoses before drugs."""
        n = len(patients)
        code = np.concatenate((self._code_ids(patients.diagnoses, "icd"), self._code_ids(patients.drugs, "atc")))
        entity = np.repeat(
            np.array([ENTITY_ID["icd"], ENTITY_ID["atc"]], dtype=np.int32),
            [len(patients.diagnoses.codes), len(patients.drugs.codes)],
        )
        day = np.concatenate((patients.diagnoses.days, patients.drugs.days))
        patient = np.concatenate(
            (np.repeat(np.arange(n), patients.diagnoses.counts()), np.repeat(np.arange(n), patients.drugs.counts()))
        )
        # Stable, so codes of a visit stay in the order of the record; quick, since most records are in order of time.
        order = np.argsort(patient * _DAY_SPAN + day, kind="stable")
        code, entity, day, patient = code[order], entity[order], day[order], patient[order]

        keep = _first_in_visit(code, entity, _runs(patient, day))
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
        sexes = _ids_of(sex_id, patients.sexes)[rows]
        states = _ids_of(state_id, patients.states)[rows]
        self.summary.unknown_sex += int((sexes == UNK).sum())
        self.summary.unknown_state += int((states == UNK).sum())
        return TokenColumns(
            codes=code,
            entities=entity,
            ages=self._ages(day, patients.birth_years[patient]),
            positions=(visit - first_visit[patient] + 1).astype(np.int32),
            offsets=_offsets(np.bincount(patient, minlength=n)[rows]),
            visit_days=day[starts].astype(np.int32),
            visit_offsets=_offsets(visits[rows]),
            sexes=sexes,
            states=states,
            rows=rows,
        )

    def vocabulary(self, used: np.ndarray) -> tuple[CodeVocabulary, np.ndarray]:
        """Return the vocabulary of the codes in use and the final id of each provisional one, (provisional,) int32.

        Args:
            used: provisional ids that the encoded patients hold.
        """
        of_id = {i: key for key, i in self._ids.items()}
        in_use = [of_id[i] for i in np.unique(used).tolist() if i in of_id]
        by_system = {name: [code for system, code in in_use if system == name] for name in ("atc", "icd")}
        vocabulary = CodeVocabulary.build(by_system["atc"], by_system["icd"])
        final = np.full(len(SPECIAL_TOKENS) + len(self._ids), UNK, dtype=np.int32)
        final[: len(SPECIAL_TOKENS)] = np.arange(len(SPECIAL_TOKENS))
        start = len(SPECIAL_TOKENS)
        for system in ("atc", "icd"):
            for code in sorted(by_system[system]):
                final[self._ids[system, code]] = start
                start += 1
        return vocabulary, final

    def extended_vocabulary(self) -> tuple[CodeVocabulary, np.ndarray]:
        """Return the known vocabulary with the new codes at its end, and the final id of each provisional one."""
        known = self._known or CodeVocabulary.build([], [])
        new = list(self._ids)[len(known) - len(SPECIAL_TOKENS) :]
        vocabulary = CodeVocabulary(
            (*known.tokens, *(label(code, system) for system, code in new)),  # type: ignore[arg-type]
            np.concatenate((known.entities, np.array([ENTITY_ID[system] for system, _ in new], dtype=np.uint8))),
        )
        return vocabulary, np.arange(len(vocabulary), dtype=np.int32)

    def _code_ids(self, events: EventColumns, system: codes.CodeSystem) -> np.ndarray:
        """Return provisional ids, UNK for what is no code of the system. Works on the distinct codes."""
        ids = np.full(len(events.table), UNK, dtype=np.int32)
        counts = np.bincount(events.codes, minlength=len(ids))
        for i in np.flatnonzero(counts).tolist():
            code = codes.normalize(events.table[i], system)
            if code is not None:
                ids[i] = self._ids.setdefault((system, code), len(SPECIAL_TOKENS) + len(self._ids))
        for i in np.flatnonzero((ids == UNK) & (counts > 0)).tolist():
            self.summary.unknown_codes[events.table[i]] += int(counts[i])
        return ids[events.codes]

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

    def _ages(self, day: np.ndarray, birth_year: np.ndarray) -> np.ndarray:
        months = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)  # since January 1970
        years = months // 12 + 1970 - birth_year
        self.summary.before_birth += int((years < 0).sum())
        return age_ids(years, months % 12, self.age_unit).astype(np.int32)


def _ids_of(id_of: Callable[[str | None], int], names: list[str | None]) -> np.ndarray:
    """Return the id of each name, (N,) uint8; each distinct name is looked up once."""
    ids = {name: id_of(name) for name in set(names)}
    return np.fromiter(map(ids.__getitem__, names), dtype=np.uint8, count=len(names))


def _runs(*keys: np.ndarray) -> np.ndarray:
    """Number the runs of equal neighbors, from 0."""
    if len(keys[0]) == 0:
        return np.empty(0, dtype=np.int64)
    changes = np.zeros(len(keys[0]), dtype=bool)
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.cumsum(changes)


def _first_in_visit(code: np.ndarray, entity: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Return the indices, in order, of the tokens that are no repetition of a code within their visit."""
    if len(code) == 0:
        return np.empty(0, dtype=np.int64)
    span = int(code.max()) + 1
    key = (visit * len(ENTITY_ID) + entity) * span + code  # a UNK diagnosis and a UNK drug are two tokens
    in_order = np.sort(key)
    if (in_order[1:] != in_order[:-1]).all():  # the usual case, at a quarter of the price
        return np.arange(len(key))
    return np.sort(np.unique(key, return_index=True)[1])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
