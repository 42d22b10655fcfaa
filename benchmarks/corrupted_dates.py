"""Does a file with one date in a hundred corrupted give the risks of the clean one?

    python benchmarks/corrupted_dates.py                        # a million patients; some ten minutes
    python benchmarks/corrupted_dates.py --patients 50000

Realistic patients are generated (seed 42). In a copy of their file one in a hundred of all dates, of events, of
observation and of death, is replaced: by a placeholder, by a day in the future, by one before birth. Both are read with
the default settings. A risk is the cumulative incidence within a year of 2023-01-01, with death as a competing event,
among those observed on that day who have not had the endpoint, censored patients included. The figure is the difference
of the two in standard errors of the clean one; the patients are the same, so most of the sampling error is shared, and
what is left is what the corruption did.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from common import Measurement, at_least_one, generate, load_average, report

from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.observation import NEVER
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.data.patient import NO_DAY, PatientColumns, day_number
from exmed_bert.data.patient_input import PatientInput, read_patients
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.writers import Fields, write_patients
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.incidence import cumulative_incidence
from exmed_bert.reference.tables import load
from exmed_bert.synthetic.life import LASTING

PATIENTS, SEED = 1_000_000, 42
SHARE = 0.01  # of the dates
INDEX, HORIZON = "2023-01-01", 365
WRONG = ("9999-12-31", "2999-12-31", "2030-06-15", "1970-01-01", "1900-01-01", "1899-12-31")
DEATH = "death"
FEWEST = 100  # expected with the outcome: endpoints with fewer are left out
WORST = 1.96  # standard errors


def corrupted(patients: PatientColumns, rng: np.random.Generator, share: float = SHARE) -> PatientColumns:
    """Return the patients with a share of all their dates replaced by days that cannot be."""
    wrong = np.array([day_number(date.fromisoformat(day)) for day in WRONG])
    born = (patients.birth_years.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    before_birth = born.astype(np.int64) - 100

    def some(days: np.ndarray, owner: np.ndarray) -> np.ndarray:
        kind = rng.integers(0, len(wrong) + 1, len(days))
        other = np.where(kind < len(wrong), wrong[kind.clip(max=len(wrong) - 1)], before_birth[owner])
        return np.where((rng.random(len(days)) < share) & (days != NO_DAY), other, days).astype(np.int32)

    events, everyone = patients.events, np.arange(len(patients))
    return replace(
        patients,
        events=replace(events, days=some(events.days, events.patients())),
        periods={name: some(days, everyone) for name, days in patients.periods.items()},
    )


@dataclass(frozen=True)
class Risk:
    """A risk with its standard error and the patients at risk."""

    value: float
    error: float
    patients: int


def risks(chunks: Iterable[PatientColumns], endpoints: Iterable[str]) -> dict[str, Risk]:
    """Return the risk of each endpoint, and of death where `DEATH` is among them."""
    names = list(endpoints)
    tasks = {
        name: FirstOccurrence(
            Endpoint("Z99.89" if name == DEATH else name),  # a code that nobody has: everyone is at risk of death
            IndexRule.parse(f"fixed:{INDEX}", HORIZON, SEED),
            HORIZON,
            0,
            keep_censored=True,
        )
        for name in names
    }
    times: dict[str, list[np.ndarray]] = {name: [] for name in names}  # outcome, end, death of those at risk
    for patients in chunks:
        hashes = hash_patient_ids(patients.patient_ids)
        for name, task in tasks.items():
            chosen = task.select(patients, hashes)
            seen = chosen.observed.take(chosen.rows)
            columns = (chosen.outcome_days, seen.end, seen.death)
            times[name].append(np.stack([column.clip(max=NEVER).astype(np.int32) for column in columns]))
    found = {}
    for name, parts in times.items():
        outcome, end, death = np.concatenate(parts, axis=1)
        if name == DEATH:
            outcome, death = death, np.full_like(death, NEVER)
        start = np.full(len(end), day_number(date.fromisoformat(INDEX)))
        incidence = cumulative_incidence(FollowUp.between(start, outcome, end, death))
        at = np.searchsorted(incidence.days, HORIZON, side="right") - 1
        found[name] = Risk(float(incidence.outcome[0, at]), float(np.sqrt(incidence.variance[0, at])), len(end))
    return found


def lasting_codes() -> list[str]:
    """Return the codes of the conditions that last: those that endpoints are made of."""
    diagnoses = load().diagnoses
    return [code for code, kind in zip(diagnoses.codes, diagnoses.kinds, strict=True) if kind in LASTING]


def figures_of(folder: Path, patients: int) -> Iterator[Measurement]:
    """Generate, corrupt, read both, and compare."""
    clean = generate(folder / "clean.parquet", patients, SEED, ("--realistic", "--workers", "2"))
    rng, copy = np.random.default_rng(SEED), folder / "corrupted.parquet"
    write_patients(copy, (corrupted(chunk, rng) for chunk in read_patients(clean)), Fields(periods=True))
    endpoints = [*lasting_codes(), DEATH]
    source = PatientInput((copy,))
    before, after = risks(PatientInput((clean,)).chunks(), endpoints), risks(source.chunks(), endpoints)
    dropped = Counter(source.summary.implausible_events)
    yield Measurement("events dropped for their dates", [dropped.total()], "events")
    yield Measurement("days of observation and death dropped", [source.summary.implausible_periods.total()], "days")
    yield Measurement("patients excluded", [source.summary.excluded.total()], "patients")
    compared = {name: risk for name, risk in before.items() if risk.value * risk.patients >= FEWEST}
    off = {name: (after[name].value - risk.value) / risk.error for name, risk in compared.items()}
    worst = max(map(abs, off.values()))
    yield Measurement(f"risks compared, worst difference of {len(off)}", [worst], "standard errors", at_most=WORST)
    yield Measurement("risks, mean difference", [float(np.mean(list(off.values())))], "standard errors")
    for name, risk in compared.items():
        what = f"{name}: clean {risk.value:.5f} ± {risk.error:.5f}, corrupted {after[name].value:.5f}"
        yield Measurement(what, [off[name]], "standard errors")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    given = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        figures = list(figures_of(Path(folder), given.patients))
    report("corrupted_dates", given, load, figures)


if __name__ == "__main__":
    main()
