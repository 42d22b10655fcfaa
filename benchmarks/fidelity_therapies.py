"""How long-term therapies go on, as the fills on record show it: filled once, stopped, begun again.

A part of `fidelity.py`. Days of supply are not on record: a therapy counts as stopped where no fill follows within one
and a half times its usual interval and a month.
"""

from dataclasses import dataclass

import numpy as np

from exmed_bert.reference.tables import Drugs
from exmed_bert.synthetic.events import first_of_run
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.report.measures import Coded

NEW_AFTER = 365  # days observed before a first fill that counts as the begin of a therapy
ONCE = 180  # days without a second fill
MONTH = 30


@dataclass
class Therapies:
    """Counts of therapies.

    Attributes:
        new, once: therapies that begin and are followed for `ONCE` days, and those that were not filled again by then.
        stops, years_on: of therapies with a second fill, and their years until a stop.
        restarts, years_off: fills after a stop, and the years without.
    """

    new: int = 0
    once: int = 0
    stops: int = 0
    restarts: int = 0
    years_on: float = 0.0
    years_off: float = 0.0

    def add(self, fills: Coded, drugs: Drugs, start: np.ndarray, end: np.ndarray) -> None:
        """Count the fills of a chunk in, with the first and the last day observed of each patient.

        Drugs of a class of which one is taken at a time are one therapy: a switch is no stop.
        """
        kept, n = drugs.long_term[fills.codes], len(drugs.codes) + int(drugs.classes.max()) + 1
        of_drug = np.where(drugs.classes < 0, np.arange(len(drugs.codes)), len(drugs.codes) + drugs.classes)
        therapy = fills.patients[kept] * n + of_drug[fills.codes[kept]]
        order = np.lexsort((fills.days[kept], therapy))
        therapy, days = therapy[order], fills.days[kept][order].astype(np.int64)
        if not len(therapy):
            return
        first = first_of_run(therapy)
        number, patient = np.cumsum(first) - 1, therapy // n
        last = np.append(first[1:], True)
        gap = np.where(last, end[patient] - days, np.append(days[1:], 0) - days)  # to the next fill, or to the end

        begin = first & (days >= start[patient] + NEW_AFTER) & (days + ONCE <= end[patient])
        self.new += int(begin.sum())
        self.once += int((begin & (last | (gap > ONCE))).sum())

        usual = _median_of_runs(np.where(last, np.iinfo(np.int64).max, gap), number, np.bincount(number) - 1)
        most = 1.5 * usual[number] + MONTH
        seen = ~first & (days + most <= end[patient])  # from the second fill on, and a stop would be seen
        stop = seen & (gap > most)
        self.stops += int(stop.sum())
        self.years_on += float((np.where(stop, usual[number] / 2, gap) * seen).sum() / YEAR)
        self.restarts += int((stop & ~last).sum())
        self.years_off += float(((gap - most) * stop).sum() / YEAR)


def _median_of_runs(values: np.ndarray, number: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the median of the ``count`` lowest values of each run, (runs,); 0 where there is none."""
    ordered = values[np.lexsort((values, number))]
    start = np.cumsum(count + 1) - (count + 1)
    return np.where(count > 0, ordered[start + (count - 1).clip(0) // 2], 0)
