"""One patient of an input, and the patient as known at each visit, which are read like patients of their own."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from exmed_bert.console import InputError, OptionError, shown
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.data.readers.summary import ReadingSummary

_VISITS, _CODES = 10, 8  # at least, of the generated patient that is shown where none is named
_EXAMPLES = 30  # patients; the first with predictions at half of the visits is shown


def find_patients(source: PatientInput, patient_id: str | None) -> list[PatientColumns]:
    """Return one patient; without an id some of generated ones with several visits and codes, to show one of them.

    Raises:
        InputError: there is no such patient, or the patient has no event.
        OptionError: an id is needed, since the patients were not generated.
    """
    source.announce()
    examples: list[PatientColumns] = []
    for patients in source.quiet_chunks(CHUNK):
        if patient_id is None:
            for row in range(len(patients)):
                if len(examples) == _EXAMPLES:
                    break
                one = patients.take(np.array([row]))
                if len(np.unique(one.events.days)) >= _VISITS and len(np.unique(one.events.codes)) >= _CODES:
                    examples.append(one)
            continue
        row = next((i for i, known in enumerate(patients.patient_ids) if str(known) == patient_id), -1)
        if row >= 0:
            found = patients.take(np.array([row]))
            if not len(found.events.days):
                raise InputError(f"{source}: patient {shown(patient_id)}: has no event")
            return [found]
    source.check_any()
    if patient_id is not None:
        raise InputError(f"{source}: --patient-id {shown(patient_id)}: no such patient among {source.read[0]:,}")
    if not source.generated:
        raise OptionError("--patient-id: is missing; of patients that were not generated one has to be named")
    if not examples:
        raise InputError(f"{source}: no patient has {_VISITS} visits and {_CODES} codes; give --patient-id")
    return examples


class AtVisits(PatientInput):
    """A patient as known at each visit: as many patients as there are visits, their ids the visits' numbers from 0.

    Attributes:
        days: (V,) the days of the visits since 1970-01-01, in order.
    """

    def __init__(self, source: PatientInput, patient: PatientColumns) -> None:
        """Take a patient and the input that it is of."""
        self.settings, self.static_columns, self.today = source.settings, source.static_columns, source.today
        self.reader, self.summary, self.read = source.reader, ReadingSummary(), (0, 0)
        self.origin = Origin("", own_record=True)
        self._translator = None
        self._name = str(source)
        self.days = np.unique(patient.events.days)
        copies = patient.take(np.zeros(len(self.days), dtype=np.int64)).up_to(self.days)
        self._columns = replace(copies, patient_ids=list(range(len(self.days))))

    def __str__(self) -> str:
        return self._name

    def chunks(self, size: int = CHUNK) -> Iterator[PatientColumns]:
        """Yield all of them; their codes have been translated already."""
        yield self._columns
