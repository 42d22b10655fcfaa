"""Observation and index dates: what a record says of them, and that they never depend on the outcome."""

import itertools
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import record, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.labeled import UNLABELED, Cohort, Timeline
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.observation import NEVER, observe
from exmed_bert.cohorts.tasks.base import Selection, Task
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.cohorts.tasks.prolonged_stay import ProlongedStay
from exmed_bert.data.patient import EPOCH, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.readers.validation import RecordFields, columns_of
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.settings import ReadingSettings

START = date(2015, 1, 1)
DAY_0 = (START - EPOCH).days
ENDPOINT = "I50.9"
FORM = ModelInput(CodeVocabulary.build([("icd10cm", "I10")]), 50, "years", [SplitRule(42, 0.5)])
HORIZON = 200
RULES = ("last-visit-before", "first-visit", "random", f"fixed:{START + timedelta(300)}", "last-visit")

Events = dict[int, list[str]]  # codes by the day after `START`


def patient(number: int, events: Events, **changes: Any) -> dict[str, Any]:
    """Return a record with diagnoses and, in ``changes``, further fields; days count from `START`."""
    pairs = [((START + timedelta(day)).isoformat(), code) for day, codes in events.items() for code in codes]
    plain: dict[str, Any] = {"drugs": [], "prescription_dates": [], "diagnoses": [code for _, code in pairs]}
    periods = {name: (START + timedelta(day)).isoformat() if type(day) is int else day for name, day in changes.items()}
    return record(number, **plain, diagnosis_dates=[day for day, _ in pairs]) | periods


def columns(records: Sequence[dict[str, Any]]) -> PatientColumns:
    return columns_of(Path("p.json"), list(records), 1, RecordFields(BUILT_IN))


def select(task: Task, records: Sequence[dict[str, Any]]) -> Selection:
    patients = columns(records)
    return task.select(patients, hash_patient_ids(patients.patient_ids))


def built(folder: Path, records: list[dict[str, Any]], task: Task, **reading: Any) -> Cohort:
    source = PatientInput([write_records(folder / "p.json", records)], ReadingSettings(**reading))
    return build(source, task, FORM, 1, seed=1)


def first_occurrence(
    index: str = RULES[0], gap: int = 0, washout: int = 0, before: int = 0, keep: bool = False
) -> FirstOccurrence:
    rule = IndexRule.parse(index, HORIZON, 7, before, gap if keep else None)
    return FirstOccurrence(Endpoint(ENDPOINT), rule, HORIZON, gap, index != "last-visit", washout, keep)


# --- never a function of the outcome ---

DAYS = st.integers(0, 900)


@st.composite
def cohorts(draw: st.DrawFn) -> list[tuple[Events, list[int], list[int], dict[str, int]]]:
    """Draw patients: their other events, days of the endpoint, other days of it, and what the record says."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        others = draw(st.lists(DAYS, max_size=8))
        said = draw(st.sets(st.sampled_from(["observation_start", "observation_end", "death_date"])))
        period = {name: draw(DAYS) for name in sorted(said)}
        days = [draw(st.lists(DAYS | st.sampled_from(others or [0]), max_size=4)) for _ in range(2)]
        found.append(({day: ["I10"] for day in others}, days[0], days[1], period))
    return found


def with_endpoint(events: Events, days: Sequence[int]) -> Events:
    return {day: events.get(day, []) + [ENDPOINT] * days.count(day) for day in {*events, *days}}


@pytest.mark.parametrize(("rule", "keep"), [*((rule, False) for rule in RULES[:-1]), *((r, True) for r in RULES[1:-1])])
@settings(max_examples=60, deadline=None)
@given(
    cohort=cohorts(), gap=st.sampled_from([0, 50]), washout=st.sampled_from([0, 90]), before=st.sampled_from([0, 60])
)
def test_neither_index_date_nor_membership_depends_on_the_endpoint_after_it(
    rule: str, keep: bool, cohort: list[Any], gap: int, washout: int, before: int
) -> None:
    """Endpoint codes after the index date, and after the gap, go, come and move."""
    for extract_end in (None, DAY_0 + 950):
        task = first_occurrence(rule, gap, washout, before, keep)
        task.extract_end = extract_end
        base = [patient(i, with_endpoint(events, days), **said) for i, (events, days, _, said) in enumerate(cohort)]
        plain = columns([patient(i, events, **said) for i, (events, _, _, said) in enumerate(cohort)])
        found, observed = select(task, base), task.observe(plain)
        index = task.index.days(plain.events, hash_patient_ids(plain.patient_ids), observed) - DAY_0
        moved = [
            [*(d for d in days if d <= index[i] + gap), *(d for d in others if d > index[i] + gap)]
            for i, (_, days, others, _) in enumerate(cohort)
        ]
        other = [patient(i, with_endpoint(events, moved[i]), **said) for i, (events, _, _, said) in enumerate(cohort)]
        again = select(task, other)
        assert found.rows.tolist() == again.rows.tolist() and found.days.tolist() == again.days.tolist()
        assert (found.days - DAY_0 == index[found.rows]).all()
        for one in (found.observed, again.observed):
            assert one is not None and all(
                np.array_equal(getattr(one, name), days) for name, days in vars(observed).items()
            )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=20, deadline=None)
@given(cohort=cohorts(), plos=st.lists(st.sampled_from([True, False]), min_size=5, max_size=5))
def test_the_index_dates_of_other_tasks_do_not_depend_on_their_labels(
    rule: str, cohort: list[Any], plos: list[bool]
) -> None:
    index = IndexRule.parse(rule, HORIZON, 7)
    for task in (ProlongedStay(index), OwnLabels(None, index)):
        found = [
            select(task, [patient(i, events, had_plos=label, **said) for (i, (events, _, _, said)), label in pairs])
            for pairs in (zip(enumerate(cohort), labels, strict=False) for labels in (plos, [True] * 5))
        ]
        assert found[0].rows.tolist() == found[1].rows.tolist() and found[0].days.tolist() == found[1].days.tolist()


@pytest.mark.parametrize("rule", RULES[:1] + RULES[3:4])
def test_one_endpoint_code_as_the_last_event_changes_no_cohort(rule: str) -> None:
    """The two differ in nothing else: once the case was in and the other left out or censored away."""
    for others, expected in (({0: ["I10"], 150: ["I10"]}, []), ({0: ["I10"], 600: ["I10"]}, [0, 1])):
        last = max(others) + 100
        found = select(first_occurrence(rule), [patient(0, others), patient(1, others | {last: [ENDPOINT]})])
        assert found.rows.tolist() == expected and len(set(found.days.tolist())) <= 1


# --- what observation is ---


@pytest.mark.parametrize(
    ("said", "extract_end", "expected"),
    [
        (
            {},
            None,
            (10, 400, NEVER, "first event that is not of the endpoint", "last event that is not of the endpoint"),
        ),
        ({}, 500, (10, 500, NEVER, "first event that is not of the endpoint", "end of the extract")),
        (
            {"observation_start": 5, "observation_end": 450},
            500,
            (5, 450, NEVER, "observation_start", "observation_end"),
        ),
        ({"death_date": 420}, None, (10, 420, 420, "first event that is not of the endpoint", "death_date")),
        ({"death_date": 420}, 500, (10, 420, 420, "first event that is not of the endpoint", "death_date")),
        (
            {"death_date": 480, "observation_end": 450},
            None,
            (10, 450, 480, "first event that is not of the endpoint", "observation_end"),
        ),
    ],
)
def test_the_record_decides_and_then_the_other_events_or_the_end_of_the_extract(
    said: dict[str, int], extract_end: int | None, expected: tuple[Any, ...]
) -> None:
    patients = columns([patient(1, {0: [ENDPOINT], 10: ["I10"], 400: ["I10"], 460: [ENDPOINT]}, **said)])
    of_endpoint = Endpoint(ENDPOINT).among(patients.events.table)
    found = observe(patients, of_endpoint, None if extract_end is None else DAY_0 + extract_end)
    start, end, death, begins, ends = expected
    assert found.start.tolist() == [DAY_0 + start] and found.end.tolist() == [DAY_0 + end]
    assert found.death.tolist() == [death if death == NEVER else DAY_0 + death]
    assert dict(found.sources()) == {(begins, ends): 1}


def test_events_on_days_that_cannot_be_begin_and_end_no_observation(tmp_path: Path) -> None:
    records = [patient(i, {0: ["I10"], 500: ["I10"], 700: ["I10"]}) for i in range(4)]
    for made, day in zip(records, ("1900-01-01", "9999-12-31", "1950-01-01"), strict=False):
        made["diagnoses"].append("I10")
        made["diagnosis_dates"].append(day)
    for keep in (False, True):
        cohort = built(tmp_path, records, first_occurrence(), keep_implausible_dates=keep)
        assert cohort.patients.index_days.tolist() == [DAY_0 + 500] * 4
        assert cohort.patients.timeline.observed_until.tolist() == [DAY_0 + 700] * 4


def test_a_cohort_says_what_followed(tmp_path: Path) -> None:
    records = [
        patient(1, {0: ["I10"], 150: [ENDPOINT], 160: [ENDPOINT], 300: ["I10"]}),
        patient(2, {0: ["I10"], 300: ["I10"], 400: [ENDPOINT]}, death_date=330),
        patient(3, {0: ["I10"], 300: ["I10"]}, observation_end=700),
    ]
    cohort = built(tmp_path, records, first_occurrence(f"fixed:{START + timedelta(20)}"), days_after_death=200)
    followed = cohort.patients.timeline
    assert followed.outcome_days.tolist() == [DAY_0 + 150, NEVER, NEVER]  # an endpoint after the end was not observed
    assert followed.observed_until.tolist() == [DAY_0 + 300, DAY_0 + 330, DAY_0 + 700]
    assert followed.death_days.tolist() == [NEVER, DAY_0 + 330, NEVER]
    assert all(days.dtype == np.int32 for days in vars(followed).values()) and sum(cohort.observation.values()) == 3
    assert cohort.patients.labels.tolist() == [1, 0, 0]


# --- the censored stay ---


@pytest.mark.parametrize(
    ("index", "gap", "days", "labels"),
    [
        (f"fixed:{START + timedelta(20)}", 0, [20, 20, 20, 20, 20], [1, 0, -1, 0, -1]),
        (f"fixed:{START + timedelta(20)}", 40, [20, 20, 20], [1, 0, 0]),
        ("first-visit", 0, [0, 0, 0, 0, 0, 0], [1, 0, -1, 0, -1, -1]),
        ("last-visit-before", 0, [0, 0], [1, 0]),
    ],
)
def test_who_is_censored_stays_without_a_label(index: str, gap: int, days: list[int], labels: list[int]) -> None:
    records = [
        patient(0, {0: ["I10"], 100: [ENDPOINT], 120: ["I10"]}, observation_end=210),  # observed to the end
        patient(1, {0: ["I10"]}, observation_end=150, death_date=150),  # dies without it
        patient(2, {0: ["I10"], 50: ["I10"]}, observation_end=55),  # leaves, even before the end of the gap
        patient(3, {0: ["I10"]}, observation_end=500, death_date=400),  # free of it for the whole horizon
        patient(4, {0: ["I10"], 30: ["I10"], 50: [ENDPOINT]}),  # the endpoint alone does not prolong observation
        patient(5, {0: ["I10"]}, observation_end=10),  # left before the fixed date
    ]
    task = first_occurrence(index, gap, keep=True)
    found = select(task, records)
    assert len(found.rows) + task.exclusions.total() == len(records)
    assert (found.days - DAY_0).tolist() == days and found.labels.tolist() == labels
    assert found.observed is not None and found.outcome_days is not None
    timeline = Timeline(found.outcome_days, found.observed.end[found.rows], found.observed.death[found.rows])
    outcome = HorizonOutcome(FollowUp.of(timeline, found.days + gap), HORIZON - gap)
    assert np.where(outcome.known, outcome.labels, UNLABELED).tolist() == labels


# --- what has to come before ---


def test_washout_and_observation_before_the_index_date() -> None:
    index = f"fixed:{START + timedelta(300)}"
    records = [
        patient(1, {0: ["I10"], 100: [ENDPOINT], 600: ["I10"]}),  # 200 days before
        patient(2, {250: ["I10"], 600: ["I10"]}),  # observed for 50 days
        patient(3, {0: ["I10"], 600: ["I10"]}, observation_start=310),
        patient(4, {0: ["I10"], 400: [ENDPOINT], 600: ["I10"]}),
        patient(5, {0: ["I10"], 300: [ENDPOINT], 400: [ENDPOINT], 600: ["I10"]}),
    ]

    def members(washout: int = 0, before: int = 0) -> list[int]:
        task = first_occurrence(index, washout=washout, before=before)
        found = select(task, records)
        assert len(found.rows) + task.exclusions.total() == len(records)
        return [row + 1 for row in found.rows.tolist()]

    assert members() == [2, 4]
    assert members(washout=199) == [1, 2, 4] and members(washout=200) == [2, 4]
    assert members(before=50) == [2, 4] and members(before=51) == [4]
    assert first_occurrence(index, washout=90).title.startswith("Occurrence of I50.9")
    early, late = (first_occurrence(rule, before=100) for rule in ("first-visit", "last-visit-before"))
    visits = [patient(1, {day: ["I10"] for day in (0, 99, 100, 130, 200, 399)})]
    assert [(select(task, visits).days - DAY_0).tolist() for task in (early, late)] == [[100], [130]]


def test_events_of_the_prediction_day_are_in_the_history_or_not(tmp_path: Path) -> None:
    records = [patient(i, {0: ["I10"], 20: ["E11.9"], 40: ["I10"]}) for i in range(6)]
    labels = [f"{i},{START + timedelta(20)} 08:30:00,{i % 2}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["subject_id,prediction_time,boolean_value", *labels]))
    source = PatientInput([write_records(tmp_path / "p.json", records)])
    for same_day, lengths in ((True, 2), (False, 1)):
        cohort = build(source, OwnLabels(tmp_path / "labels.csv"), FORM, 1, seed=1, same_day=same_day)
        assert cohort.patients.dataset.lengths.tolist() == [lengths] * 6 and cohort.same_day == same_day
        assert cohort.patients.index_days.tolist() == [DAY_0 + 20] * 6


# --- corrupted dates ---


def test_corrupted_dates_keep_every_risk(tmp_path: Path) -> None:
    """1 % of the dates are replaced by such as real files hold; the risk stays within its sampling error."""
    rng = np.random.default_rng(5)
    wrong = ("9999-12-31", "1900-01-01", "1970-01-01", "2091-02-03", "1950-06-06", "0001-01-01")
    records, corrupted = [], []
    for i in range(3000):
        days = np.sort(rng.choice(1200, size=rng.integers(4, 25), replace=False)).tolist()
        events: Events = {day: ["I10"] for day in days}
        for day in days[1:]:
            events[day] = ["I10", *[ENDPOINT] * bool(rng.random() < 0.02)]
        records.append(patient(i, events))
        spoiled = [str(rng.choice(wrong)) if rng.random() < 0.01 else day for day in records[-1]["diagnosis_dates"]]
        corrupted.append(records[-1] | {"diagnosis_dates": spoiled})
    for rule, before in itertools.product((RULES[0], RULES[1], f"fixed:{START + timedelta(500)}"), (0, 100)):
        found = [
            built(tmp_path, made, first_occurrence(rule, before=before), **given).patients
            for made, given in ((records, {}), (corrupted, {}), (corrupted, {"keep_implausible_dates": True}))
        ]
        clean, *others = (one.labels.mean() for one in found)
        error = np.sqrt(clean * (1 - clean) / len(found[0]))
        assert 0.02 < clean < 0.5 and all(abs(risk - clean) < error for risk in others), (rule, clean, others, error)
        assert all(abs(len(one) - len(found[0])) < 0.05 * len(found[0]) for one in found)
