"""From events in the code systems that files declare to events in those that a model is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exmed_bert.codes import ICD10CM, CodeKey
from exmed_bert.data.patient import EventColumns, PatientColumns
from exmed_bert.data.translation.lookalikes import ICD9CM, ICD10CM_BEGINS, Reading, as_written, marked, reading
from exmed_bert.data.translation.summary import LEFT_OUT, TranslationSummary
from exmed_bert.data.translation.targets import Fate, TargetCodes
from exmed_bert.settings import ReadingSettings

_EXAMPLES = 3


class Translator:
    """Translates chunk after chunk of patients; what becomes of a patient depends on the patient's chunk alone.

    Codes of ICD-10-CM and ATC take their usual spelling and the level that is asked for, codes of other systems are
    mapped to them, kept or left out (`TargetCodes`). What is no code of a system that is kept stays as it is written.
    Events keep their order; the targets of one follow each other.

    Attributes:
        summary: counts of all events so far.
    """

    def __init__(self, settings: ReadingSettings, own_record: bool = False) -> None:
        """Read the user's map.

        Args:
            settings: of the reading.
            own_record: whether the patients come from our own record, whose list of diagnoses is of the system that
                ``diagnosis_system`` names, and of which all systems are kept unless ``keep_systems`` says otherwise.

        Raises:
            OptionError: a system of ``keep_systems`` is not known.
            InputError: the map or the folder of the vocabularies cannot be read.
        """
        self.summary = TranslationSummary()
        self._targets = TargetCodes(settings, own_record)
        self._diagnosis_system = settings.diagnosis_system if own_record else None
        self._readings: dict[CodeKey, Reading] = {}

    def apply(self, patients: PatientColumns) -> PatientColumns:
        """Return the patients with translated events; the same object where nothing changes.

        Raises:
            InputError: a package or the vocabularies of OHDSI cannot be read.
        """
        events = self._declared(patients.events)
        fates = self._targets.fates(events.table)
        self._count(events, fates)
        if events is patients.events and all(fate.is_itself for fate in fates):
            return patients
        return replace(patients, events=_translated(events, fates))

    def warnings(self) -> list[str]:
        """Return a line on each thing that a user has to know after the last chunk."""
        lines = []
        code_map = self._targets.code_map
        if code_map is not None and code_map.wrong_targets:
            lines.append(
                f"{code_map.path}: rows whose target is no code of its system are left out: "
                f"{code_map.wrong_targets:,}, the first {code_map.example}"
            )
        if found := self.summary.read_as_icd9:
            examples = ", ".join(f"{code!r}" for code, _ in found.most_common(_EXAMPLES))
            lines.append(
                f"{found.total():,} codes of the list of diagnoses read as ICD-9-CM, such as {examples}, and count as "
                "unknown (UNK); if the list is ICD-9-CM, use --diagnosis-system icd9cm, or by-date if it is until "
                "October 2015"
            )
        return lines

    def _declared(self, events: EventColumns) -> EventColumns:
        """Return the events of our own record in the system that their list is in."""
        if self._diagnosis_system is None:
            return events
        listed = {i: text for i, (system, text) in enumerate(events.table) if system == ICD10CM}
        if self._diagnosis_system == ICD10CM:
            return self._without_lookalikes(events, listed)
        as_icd9 = {i: (ICD9CM, text) for i, text in listed.items()}
        if self._diagnosis_system == "by-date":
            return _before_icd10(events, as_icd9)
        return replace(events, table=[as_icd9.get(i, key) for i, key in enumerate(events.table)])

    def _without_lookalikes(self, events: EventColumns, listed: Mapping[int, str]) -> EventColumns:
        """Return the events with those that read as ICD-9-CM marked, so that they are unknown."""
        by_reading: dict[Reading, list[int]] = {kind: [] for kind in Reading}
        for i, text in listed.items():
            key = (ICD10CM, text)
            if key not in self._readings:
                self._readings[key] = reading(text)
            by_reading[self._readings[key]].append(i)
        if len(by_reading[Reading.ICD10]) == len(listed):
            return events
        counts = np.bincount(events.codes, minlength=len(events.table))
        numeric = {listed[i]: int(counts[i]) for i in by_reading[Reading.NUMERIC] if counts[i]}
        suspects = by_reading[Reading.ICD9] + (by_reading[Reading.EITHER] if numeric else [])
        split = _before_icd10(events, {i: marked(listed[i]) for i in suspects if counts[i]})
        found = np.bincount(split.codes, minlength=len(split.table))
        self.summary.read_as_icd9.update(numeric)
        for i in range(len(events.table), len(split.table)):
            self.summary.read_as_icd9[as_written(split.table[i][1])] += int(found[i])
        return split

    def _count(self, events: EventColumns, fates: Sequence[Fate]) -> None:
        if not len(events.codes):
            return
        kinds: dict[tuple[str, str], int] = {}  # of declared system and outcome
        declared = [(system, fate.outcome) for (system, _), fate in zip(events.table, fates, strict=True)]
        kind = np.array([kinds.setdefault(one, len(kinds)) for one in declared], dtype=np.int32)
        first, last = int(events.days.min()), int(events.days.max())
        days = np.arange(first, last + 1).astype("datetime64[D]")
        years = days.astype("datetime64[Y]").astype(np.int32) + 1970  # of each day, since events are many more
        span = int(years[-1] - years[0]) + 1
        cells = (kind * span).take(events.codes)
        cells += (years - years[0]).take(events.days - first)
        counts = np.bincount(cells, minlength=len(kinds) * span).reshape(len(kinds), span)
        for (system, outcome), i in kinds.items():
            for year in np.flatnonzero(counts[i]).tolist():
                self.summary.events[system, outcome, int(years[0]) + year] += int(counts[i, year])
        lost = [i for i, fate in enumerate(fates) if fate.outcome == LEFT_OUT]
        if lost:
            of_code = np.bincount(events.codes, minlength=len(fates))
            for i in lost:
                if of_code[i]:
                    self.summary.unmapped[events.table[i][0], fates[i].code] += int(of_code[i])


def _before_icd10(events: EventColumns, keys: Mapping[int, CodeKey]) -> EventColumns:
    """Return the events with other codes before ICD-10-CM began; ``keys`` has them by their place in the table."""
    if not keys:
        return events
    place = np.arange(len(events.table), dtype=np.int32)
    place[list(keys)] = np.arange(len(events.table), len(events.table) + len(keys))
    codes = np.where(events.days < ICD10CM_BEGINS, place[events.codes], events.codes)
    if np.array_equal(codes, events.codes):
        return events
    return replace(events, codes=codes, table=[*events.table, *keys.values()])


def _translated(events: EventColumns, fates: Sequence[Fate]) -> EventColumns:
    """Return the events with the targets of each code in its place."""
    used = np.bincount(events.codes, minlength=len(fates)) > 0
    ids: dict[CodeKey, int] = {}
    targets = [
        [ids.setdefault(target, len(ids)) for target in fate.targets] if is_used else []
        for fate, is_used in zip(fates, used.tolist(), strict=True)
    ]
    number = np.array(list(map(len, targets)), dtype=np.int64)
    flat = np.array([place for places in targets for place in places], dtype=np.int32)
    first = np.cumsum(number) - number  # of each code's targets
    if (number[used] == 1).all():
        return replace(events, codes=flat[first[events.codes]], table=list(ids))
    numbers = number[events.codes]
    ends = np.concatenate(([0], np.cumsum(numbers)))
    source = np.repeat(np.arange(len(numbers)), numbers)
    places = first[events.codes[source]] + np.arange(ends[-1]) - ends[source]
    doubtful = None if events.doubtful is None else events.doubtful[source]
    measured = None if events.measured is None else events.measured.at(source)
    return EventColumns(flat[places], events.days[source], ends[events.offsets], list(ids), doubtful, measured)
