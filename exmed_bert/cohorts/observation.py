"""Observation: from when to when each patient is observed, and who died. Never a function of the outcome.

What a record says counts. Where it says nothing, a patient is observed from the first to the last event that is not of
the endpoint, or to the end of the extract where that is known: what the endpoint itself adds to a record moves nothing.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from exmed_bert.data.patient import NO_DAY, PERIOD_FIELDS, EventColumns, PatientColumns

NEVER = int(np.iinfo(np.int32).max)  # the day of what does not happen


class Known(IntEnum):
    """Where a day of observation is known from."""

    RECORD = 0
    DEATH = 1
    EXTRACT = 2
    EVENTS = 3


@dataclass(frozen=True)
class Observation:
    """Observation of N patients, in days since 1970-01-01, (N,) int64 each.

    Attributes:
        start, end: the first and the last day; where nothing is known the start is `NEVER` and the end -`NEVER`.
        death: the day of death, `NEVER` where none is known. Observation ends with it.
        start_known, end_known: (N,) int8, `Known`.
    """

    start: np.ndarray
    end: np.ndarray
    death: np.ndarray
    start_known: np.ndarray
    end_known: np.ndarray

    def take(self, rows: np.ndarray) -> "Observation":
        """Return the observation of the given patients, in that order."""
        return Observation(**{name: column[rows] for name, column in vars(self).items()})

    def sources(self) -> Counter[tuple[str, str]]:
        """Count patients by what begins and what ends their observation, for people."""
        pairs = zip(self.start_known.tolist(), self.end_known.tolist(), strict=True)
        counted = Counter(pairs)
        return Counter({(_BEGINS[Known(start)], _ENDS[Known(end)]): count for (start, end), count in counted.items()})


_BEGINS = {Known.RECORD: "observation_start", Known.EVENTS: "first event that is not of the endpoint"}
_ENDS = {
    Known.RECORD: "observation_end",
    Known.DEATH: "death_date",
    Known.EXTRACT: "end of the extract",
    Known.EVENTS: "last event that is not of the endpoint",
}


def observe(
    patients: PatientColumns, of_endpoint: np.ndarray | None = None, extract_end: int | None = None
) -> Observation:
    """Return the observation of N patients.

    Args:
        patients: N patients.
        of_endpoint: (table,) bool, which codes of the events belong to the endpoint; None: none of them.
        extract_end: last day that the data cover, None where it is not known.
    """
    first, last = counting_events(patients, of_endpoint).span()
    no_event = last == NO_DAY
    start, end, death = (patients.period(name).astype(np.int64) for name in PERIOD_FIELDS)
    start_known = np.where(start == NO_DAY, Known.EVENTS, Known.RECORD).astype(np.int8)
    end_known = np.full(len(patients), Known.RECORD, dtype=np.int8)
    start = np.where(start == NO_DAY, np.where(no_event, NEVER, first), start)

    missing = end == NO_DAY
    if extract_end is None:
        end = np.where(missing, np.where(no_event, -NEVER, last), end)
        end_known[missing] = Known.EVENTS
    else:
        end = np.where(missing, extract_end, end)
        end_known[missing] = Known.EXTRACT
    died = death != NO_DAY
    death = np.where(died, death, NEVER)
    ends_it = died & ((death < end) | (missing & (extract_end is None)))
    end = np.where(ends_it, death, end)
    end_known[ends_it] = Known.DEATH
    return Observation(start, end, death, start_known, end_known)


def counting_events(patients: PatientColumns, of_endpoint: np.ndarray | None = None) -> EventColumns:
    """Return the events that observation and index dates may depend on: on plausible days, and not of the endpoint."""
    events = patients.events
    if of_endpoint is not None and of_endpoint.any() and len(events.codes):
        events = events.where(~of_endpoint[events.codes])
    return events if events.doubtful is None else events.where(~events.doubtful)
