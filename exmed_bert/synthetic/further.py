"""Further events of generated patients: procedures and laboratory tests at visits that they have anyway.

They are drawn from what the record says, by a generator of their own, so that diagnoses and drugs are the same with and
without them. A test's value is a person's own level, times what each condition on record does to it, times noise; all
on the scale of logarithms. A condition matters from its first record on, so that no value tells of a diagnosis to come.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exmed_bert.codes import ICD10CM
from exmed_bert.data.measured import Measured
from exmed_bert.data.patient import EventColumns, PatientColumns, merge_events
from exmed_bert.data.static_columns import SEX
from exmed_bert.reference.further import labs, procedures
from exmed_bert.reference.tables import SEXES
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.realistic import generator

PROCEDURES, LABS = "procedures", "labs"
_MIDDLE_AGE = 50  # of which the tables give the mean values
_NEVER = np.iinfo(np.int32).max


def with_further_events(patients: PatientColumns, seed: int, block: int, kinds: Sequence[str]) -> PatientColumns:
    """Return N patients with events of some kinds more.

    Args:
        patients: with their diagnoses.
        seed: of the population.
        block: the number of their block.
        kinds: those that are wanted, of `procedures` and `labs`.
    """
    visits = _Visits(patients)
    streams = enumerate(_DRAWN.items(), start=1)
    drawn = [draw(visits, generator(seed, block, stream)) for stream, (kind, draw) in streams if kind in kinds]
    return replace(patients, events=merge_events([patients.events, *drawn])) if drawn else patients


class _Visits:
    """The V visits with a diagnosis of N patients.

    Attributes:
        n: patients.
        patients, days: (V,) of each visit.
        sexes: (N,) index of `SEXES`.
        ages: (V,) in years.
    """

    def __init__(self, patients: PatientColumns) -> None:
        self.n = len(patients)
        self._events = patients.events.of_system(ICD10CM)
        owner = self._events.patients()
        visit, self._visit_of = np.unique(owner << 32 | self._events.days.astype(np.int64) + 2**31, return_inverse=True)
        self.patients, self.days = visit >> 32, (visit & (2**32 - 1)) - 2**31
        self.sexes = np.array([SEXES.index(str(sex)) for sex in patients.static[SEX.name]])
        born = (patients.birth_years - 1970) * YEAR + YEAR / 2
        self.ages = (self.days - born[self.patients]) / YEAR

    def with_code(self, code: str) -> np.ndarray:
        """Return at which visits a code is recorded, or one below it, (V,) bool."""
        found = np.zeros(len(self.days), dtype=bool)
        found[self._visit_of[self._is(code)]] = True
        return found

    def since(self, code: str) -> np.ndarray:
        """Return at which visits a code, or one below it, is on record, (V,) bool."""
        first = np.full(self.n, _NEVER, dtype=np.int64)
        own = self._is(code)
        np.minimum.at(first, self._events.patients()[own], self._events.days[own])
        return self.days >= first[self.patients]

    def _is(self, code: str) -> np.ndarray:
        of_table = np.array([text.startswith(code) for _, text in self._events.table], dtype=bool)
        return of_table[self._events.codes]

    def columns(self, visits: np.ndarray, codes: np.ndarray, table: Sequence[Any], **further: Any) -> EventColumns:
        """Return events at visits, which are in order."""
        offsets = np.concatenate(([0], np.cumsum(np.bincount(self.patients[visits], minlength=self.n))))
        return EventColumns(codes.astype(np.int32), self.days[visits].astype(np.int32), offsets, table, **further)


def _procedures(visits: _Visits, rng: np.random.Generator) -> EventColumns:
    """Draw the procedures."""
    table = procedures()
    possible = np.stack([visits.with_code(code) for code in table.needs], axis=1)
    possible &= table.sexes[:, visits.sexes[visits.patients]].T
    possible &= (visits.ages[:, None] >= table.min_age) & (visits.ages[:, None] < table.max_age + 1)
    at, code = np.nonzero(possible & (rng.random(possible.shape) < table.share))
    return visits.columns(at, code, table.keys)


def _labs(visits: _Visits, rng: np.random.Generator) -> EventColumns:
    """Draw the laboratory tests and their values."""
    table = labs()
    on_record = {code: visits.since(code) for code in table.conditions}
    share = np.tile(table.share, (len(visits.days), 1))
    for code, of, given in table.share_given:
        share[:, of] = np.where(on_record[code], np.maximum(share[:, of], given), share[:, of])
    share *= visits.ages[:, None] >= table.min_age
    level = rng.standard_normal((visits.n, len(table.codes))) * table.between  # of each person
    at, lab = np.nonzero(rng.random(share.shape) < share)
    sexes, patients = visits.sexes[visits.patients[at]], visits.patients[at]
    value = np.log(table.mean[lab, sexes]) + level[patients, lab] + rng.standard_normal(len(at)) * table.within[lab]
    value += np.log(table.per_decade[lab]) * (visits.ages[at] - _MIDDLE_AGE) / 10
    for code, of, factor in table.factor_given:
        value += np.log(factor) * (on_record[code][at] & (lab == of))
    scale = 10.0 ** table.decimals[lab]
    reported = np.rint(np.exp(value) * scale) / scale
    flags = (reported >= table.low[lab, sexes]).astype(np.int8) + (reported > table.high[lab, sexes])
    measured = Measured(reported.astype(np.float32), flags.astype(np.int8))
    return visits.columns(at, lab, [("loinc", code) for code in table.codes], measured=measured)


_DRAWN = {PROCEDURES: _procedures, LABS: _labs}
