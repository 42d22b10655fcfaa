"""Ages: from days and dates of birth to the ids of the age embedding."""

import numpy as np

from exmed_bert.data.patient import NO_DAY
from exmed_bert.data.vocabulary import MAX_AGE_YEARS, SPECIAL_TOKENS, UNK, AgeUnit


def ages_on(days: np.ndarray, birth_years: np.ndarray, birth_days: np.ndarray, unit: AgeUnit) -> np.ndarray:
    """Return the age ids of patients on given days, (n,) int32; over 110 years count as 110, before birth is UNK.

    Years are calendar year minus birth year. Months are those completed since the day of birth; where only its year is
    known, since its January.

    Args:
        days: (n,) since 1970-01-01.
        birth_years: (n,) of the patients.
        birth_days: (n,) since 1970-01-01, `NO_DAY` where only the year is known.
        unit: which age is encoded.
    """
    month, day_of_month = _months(days)
    if unit == "years":
        age, limit = month // 12 + 1970 - birth_years, MAX_AGE_YEARS
    else:
        known = birth_days != NO_DAY
        born, born_on = _months(np.where(known, birth_days, 0))
        january = (birth_years.astype(np.int64) - 1970) * 12
        age = month - np.where(known, born + (day_of_month < born_on), january)
        limit = MAX_AGE_YEARS * 12
    return np.where(age < 0, UNK, np.minimum(age, limit) + len(SPECIAL_TOKENS)).astype(np.int32)


def _months(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the months since January 1970 of days, and the days of the month, from 0."""
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return months.astype(np.int64), (dates - months).astype(np.int64)
