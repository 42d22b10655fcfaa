"""The report on a file of patients: counts against brute force, verdicts on hand-made files, the page, the script."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_line_error, record, run_here, run_script, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert import codes
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.patient import EPOCH, EventColumns, PatientColumns, day_number, merge_events
from exmed_bert.reference import tables
from exmed_bert.reporting.content import Plot, Report
from exmed_bert.reporting.html import html
from exmed_bert.reporting.small_cells import Count
from exmed_bert.settings import GenerateSettings, ReportSettings
from exmed_bert.synthetic import generate
from exmed_bert.synthetic.report import report
from exmed_bert.synthetic.report.comparison import COMPARISONS
from exmed_bert.synthetic.report.findings import BY_CHANCE, MET, MISSED, TOO_FEW, Column, Comparison, judged
from exmed_bert.synthetic.report.histories import LONGEST_GAP, Histories
from exmed_bert.synthetic.report.measures import YEARS, Measures, mantel_haenszel
from exmed_bert.synthetic.report.page import sections
from exmed_bert.synthetic.report.plots import draw

SCRIPT = "report_synthetic_data.py"
TABLES = tables.load()
DIAGNOSES, DRUGS = TABLES.diagnoses, TABLES.drugs
SOURCES = {"E11.95": "E11.9", "C10AA97": "C10AA05", "U07.1": "U07"}  # the last one: a table's code that is novel too
ICD = ("I10", "e119", "E11.95", "U07.1", "C61", "O80", "Q99.9", "no code")  # spelled, novel, bound to a sex, unlisted
ATC = ("C10AA05", "c10aa05", "C10AA97", "A10BA02", "G04BE03", "V03AX01")


def columns(records: list[dict[str, Any]]) -> PatientColumns:
    """Return records as columns, without the reader."""

    def events(system: str, code: str, day: str) -> EventColumns:
        table = sorted({name for patient in records for name in patient[code]})
        return EventColumns(
            np.array([table.index(name) for patient in records for name in patient[code]], dtype=np.int32),
            np.array([day_number(when(text)) for patient in records for text in patient[day]], dtype=np.int32),
            np.cumsum([0, *(len(patient[code]) for patient in records)]),
            [(system, name) for name in table],
        )

    plos = [-1 if patient.get("had_plos") is None else int(patient["had_plos"]) for patient in records]
    return PatientColumns(
        [patient["patient_id"] for patient in records],
        np.array([patient["birth_year"] for patient in records], dtype=np.int32),
        {
            "sex": [patient["sex"] for patient in records],
            "state": [patient["patient_state"] for patient in records],
        },
        np.array(plos, dtype=np.int8),
        merge_events(
            [
                events("icd10cm", "diagnoses", "diagnosis_dates"),
                events("atc", "drugs", "prescription_dates"),
            ]
        ),
    )


def when(text: str) -> date:
    return date.fromisoformat(text)


def day_text(number: int) -> str:
    return (EPOCH + timedelta(days=number)).strftime("%Y%m%d")


@st.composite
def cohorts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few patients with few codes, so that everything meets everything."""
    days = st.integers(day_number(date(2019, 6, 1)), day_number(date(2024, 12, 31))).map(day_text)
    patients = []
    for number in range(draw(st.integers(1, 8))):
        dx = draw(st.lists(st.tuples(st.sampled_from(ICD), days), max_size=8))
        rx = draw(st.lists(st.tuples(st.sampled_from(ATC), days), max_size=8))
        patients.append(
            record(
                number,
                birth_year=draw(st.sampled_from([1930, 1965, 1990, 2015, 2023])),
                sex=draw(st.sampled_from(["MALE", "FEMALE", "f", None])),
                diagnoses=[code for code, _ in dx],
                diagnosis_dates=[day for _, day in dx],
                drugs=[code for code, _ in rx],
                prescription_dates=[day for _, day in rx],
                had_plos=draw(st.sampled_from([True, False, None])),
            )
        )
    patients.append(record("last", diagnoses=["I10"], diagnosis_dates=["20241231"], drugs=[], prescription_dates=[]))
    return patients


def counted(*chunks: list[dict[str, Any]]) -> tuple[Measures, Histories]:
    measures, histories = Measures(TABLES, SOURCES), Histories(TABLES)
    for chunk in map(columns, chunks):
        coded = measures.code(chunk)
        measures.add_coded(chunk, *coded)
        histories.add(chunk, *coded)
    return measures, histories


def known(spelled: str, system: str) -> str | None:
    """Return the table's code that a spelled one counts as."""
    code = codes.normalize(spelled, system)
    table = DIAGNOSES.codes if system == codes.ICD10CM else DRUGS.codes
    return code if code in table else SOURCES.get(code) if SOURCES.get(code) in table else None


def cell(patient: dict[str, Any]) -> tuple[int, int] | None:
    """Return age band and sex, None without a sex."""
    band = sum(2024 - patient["birth_year"] >= start for start in (18, 45, 65))
    return None if patient["sex"] is None else (band, int(patient["sex"] != "MALE"))


# Counts against brute force ------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(patients=cohorts())
def test_counts_are_those_of_a_loop_over_patients(patients: list[dict[str, Any]]) -> None:
    measures, _ = counted(patients[:2], patients[2:])
    people, cases = np.zeros((4, 2)), np.zeros((len(DIAGNOSES.codes), 4, 2))
    users, by_year, fills, pairs = Counter(), Counter(), Counter(), Counter()
    with_diagnosis, with_both, outside = Counter(), Counter(), {codes.ICD10CM: Counter(), codes.ATC: Counter()}
    for patient in patients:
        dx = {known(code, codes.ICD10CM) for code in patient["diagnoses"]} - {None}
        rx = [(known(code, codes.ATC), int(day[:4])) for code, day in both(patient, "drugs") if known(code, codes.ATC)]
        for system, field in ((codes.ICD10CM, "diagnoses"), (codes.ATC, "drugs")):
            outside[system].update(
                codes.normalize(code, system) or code for code in patient[field] if known(code, system) is None
            )
        users.update({drug for drug, _ in rx})
        by_year.update(set(rx))
        fills.update(rx)
        with_diagnosis.update(dx)
        with_both.update((diagnosis, drug) for diagnosis in dx for drug in {drug for drug, _ in rx})
        if cell(patient) is not None:
            people[cell(patient)] += 1
            for code in dx:
                cases[DIAGNOSES.codes.index(code)][cell(patient)] += 1
            pairs.update((cell(patient), frozenset((one, other))) for one in dx for other in dx if one < other)

    assert measures.patients == len(patients) and measures.reference_year == measures.last_year == 2024
    assert (measures.people == people).all() and measures.unknown_sex == len(patients) - people.sum()
    assert (measures.cases == cases).all()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(measures.prevalence, cases / people)
    assert measures.outside == outside
    for d, drug in enumerate(DRUGS.codes):
        assert measures.users[d] == users[drug] / len(patients)
        assert measures.users_last_year[d] == by_year[drug, 2024] / len(patients)
        years = range(2019, 2025)
        assert measures.users_by_year[2019 - YEARS.start : 2025 - YEARS.start, d].tolist() == [
            by_year[drug, year] for year in years
        ]
        assert measures.fills_by_year[:, d].sum() == sum(fills[drug, year] for year in years)
    for link, (drug, diagnosis) in enumerate(zip(DRUGS.link_drug, DRUGS.link_diagnosis, strict=True)):
        have = with_diagnosis[DIAGNOSES.codes[diagnosis]]
        expected = with_both[DIAGNOSES.codes[diagnosis], DRUGS.codes[drug]] / have if have else math.nan
        np.testing.assert_equal(measures.given[link], expected)
    cells = [(band, sex) for band in range(4) for sex in range(2)]
    for (i, j), counts in zip(measures.pairs, measures.pair_tables, strict=True):
        pair = frozenset((DIAGNOSES.codes[i], DIAGNOSES.codes[j]))
        assert counts[:, 1, 1].tolist() == [pairs[at, pair] for at in cells]
        assert counts[:, 1].sum(axis=1).tolist() == [cases[i][at] for at in cells]
        assert counts[:, :, 1].sum(axis=1).tolist() == [cases[j][at] for at in cells]
        assert counts.sum(axis=(1, 2)).tolist() == [people[at] for at in cells]


def both(patient: dict[str, Any], field: str) -> Iterable[tuple[str, str]]:
    dates = {"drugs": "prescription_dates", "diagnoses": "diagnosis_dates"}[field]
    return zip(patient[field], patient[dates], strict=True)


@settings(max_examples=20, deadline=None)
@given(patients=cohorts())
def test_histories_are_those_of_a_loop_over_patients(patients: list[dict[str, Any]]) -> None:
    _, histories = counted(patients)
    gaps, lengths, sizes, days, broken = Counter(), Counter(), Counter(), Counter(), Counter()
    for patient in patients:
        fills: dict[str, set[int]] = {}
        for code, day in both(patient, "drugs"):
            if known(code, codes.ATC):
                fills.setdefault(known(code, codes.ATC), set()).add(day_number(when(day)))
        for drug, filled in fills.items():
            gaps.update((drug, after - before) for before, after in pairwise(sorted(filled)))
        on_day: dict[str, set[tuple[str, str]]] = {}
        for field in ("diagnoses", "drugs"):
            for code, day in both(patient, field):
                on_day.setdefault(day, set()).add((field, code))
        sizes.update(map(len, on_day.values()))
        lengths["visits", len(on_day)] += 1
        days["any"] += len(on_day)
        days["diagnosis"] += sum(any(field == "diagnoses" for field, _ in visit) for visit in on_day.values())
        for code, day in both(patient, "diagnoses"):
            if known(code, codes.ICD10CM):
                k, age = DIAGNOSES.codes.index(known(code, codes.ICD10CM)), int(day[:4]) - patient["birth_year"]
                limits = DIAGNOSES.limits
                if patient["sex"] and not limits.sexes[k, int(patient["sex"] != "MALE")]:
                    broken["sex", k] += 1
                if age < limits.min_age[k] or age - 1 > limits.max_age[k]:
                    broken["age", k] += 1
                if day_number(when(day)) < limits.valid_from[k]:
                    broken["valid from", k] += 1

    for d, drug in enumerate(DRUGS.codes):
        of_drug = sorted(gap for (name, gap), n in gaps.items() for _ in range(n) if name == drug)
        assert histories.gaps[d].sum() == len(of_drug) and histories.gap_days[d] == sum(of_drug)
        if of_drug and of_drug[-1] < LONGEST_GAP:
            assert histories.gap_mean()[d] == pytest.approx(np.mean(of_drug))
            assert histories.gap_median()[d] == np.median(of_drug)
    assert {n: c for n, c in enumerate(histories.lengths["codes per visit"]) if c} == sizes
    assert all(histories.lengths["visits"][n] == count for (_, n), count in lengths.items())
    assert [int(kind.sum()) for kind in histories.visits] == [days["any"], days["diagnosis"]]
    assert histories.last_seen.sum() == sum(bool(patient["diagnoses"] or patient["drugs"]) for patient in patients)
    for rule, name in enumerate(("sex", "age", "valid from")):
        found = {(name, k): n for k, n in enumerate(histories.broken[rule, : len(DIAGNOSES.codes)].tolist()) if n}
        assert found == {key: n for key, n in broken.items() if key[0] == name}


@settings(max_examples=15, deadline=None)
@given(patients=cohorts(), cut=st.integers(1, 8))
def test_counting_apart_and_merging_is_counting_together(patients: list[dict[str, Any]], cut: int) -> None:
    cut = min(cut, len(patients) - 1)
    (together, _), (first, _), (second, _) = counted(patients), counted(patients[:cut]), counted(patients[cut:])
    first.merge(second)
    for name, counts in vars(together).items():
        if isinstance(counts, np.ndarray):
            assert (getattr(first, name) == counts).all(), name
    assert all((first.by_birth_year[name] == counts).all() for name, counts in together.by_birth_year.items())
    for name in ("patients", "last_day", "events", "novel", "outside"):
        assert getattr(first, name) == getattr(together, name), name


def test_odds_ratio_by_hand() -> None:
    # Two strata [[neither, second], [first, both]]: (10*5/20 + 20*4/30) / (3*2/20 + 5*1/30) = 5.1667 / 0.4667.
    strata = np.array([[[[10, 3], [2, 5]], [[20, 5], [1, 4]]]])
    ratio, error = mantel_haenszel(strata)
    above, below = [10 * 5 / 20, 20 * 4 / 30], [3 * 2 / 20, 5 * 1 / 30]
    assert ratio[0] == pytest.approx(sum(above) / sum(below)) == pytest.approx(11.0714, abs=1e-3)
    p, q = [15 / 20, 24 / 30], [5 / 20, 6 / 30]
    variance = (
        sum(x * r for x, r in zip(p, above, strict=True)) / (2 * sum(above) ** 2)
        + sum(x * s + y * r for x, y, r, s in zip(p, q, above, below, strict=True)) / (2 * sum(above) * sum(below))
        + sum(y * s for y, s in zip(q, below, strict=True)) / (2 * sum(below) ** 2)
    )
    assert error[0] == pytest.approx(variance**0.5)
    # One stratum is the plain odds ratio, and the error Woolf's.
    ratio, error = mantel_haenszel(np.array([[[[40, 10], [20, 30]]]]))
    assert ratio[0] == pytest.approx(6) and error[0] == pytest.approx((1 / 40 + 1 / 10 + 1 / 20 + 1 / 30) ** 0.5)
    ratio, error = mantel_haenszel(np.array([[[[5, 0], [0, 5]]], [[[5, 1], [1, 0]]], [[[0, 0], [0, 0]]]]))
    assert np.isnan(ratio[[0, 2]]).all() and ratio[1] == 0 and np.isnan(error).all()


def test_the_log_odds_of_the_tables_tell_stays_apart() -> None:
    model = TABLES.prolonged_stay
    old = record(0, birth_year=1944, diagnoses=["I50.9", "I10"], diagnosis_dates=["20241231"] * 2, had_plos=True)
    young = record(1, birth_year=1994, diagnoses=["J06.9"], diagnosis_dates=["20240101"], had_plos=False)
    found = counted([old, old, young, {**old, "had_plos": False}, {**old, "had_plos": None}])[1].discrimination(2024)
    chronic = sum(DIAGNOSES.kinds[DIAGNOSES.codes.index(code)] == "chronic" for code in ("I50.9", "I10"))
    log_odds = model.intercept + 4 * model.decade_of_age_over_40 + chronic * model.chronic_condition
    log_odds += sum(model.diagnoses[DIAGNOSES.codes.index(code)] for code in ("I50.9", "I10"))
    likely, unlikely = 1 / (1 + math.exp(-log_odds)), 1 / (1 + math.exp(-model.intercept))
    assert found.auroc == 0.75  # two with a stay against one equal and one lower without: (2 + 2 / 2) / 4
    assert found.share[3] == pytest.approx(likely, abs=0.003) and found.share[1] == pytest.approx(unlikely, abs=0.003)
    positive, negative = np.array([3 * likely, unlikely]), np.array([3 * (1 - likely), 1 - unlikely])
    achievable = positive[0] * negative[1] + (positive * negative).sum() / 2
    assert found.achievable == pytest.approx(achievable / (positive.sum() * negative.sum()), abs=0.003)


def test_visits_are_per_year_lived() -> None:
    # Days with a code in each of five years; the child is born in the middle of the last one.
    days = [f"{year}{day}" for year in range(2020, 2025) for day in ("0101", "0601", "1231")]
    adult = record(0, birth_year=1960, diagnoses=["I10"] * 15, diagnosis_dates=days, drugs=[], prescription_dates=[])
    child = record(1, birth_year=2024, sex="MALE", diagnoses=["Z23"], diagnosis_dates=["20241001"])
    child |= {"drugs": ["J01CA04"], "prescription_dates": ["20241002"]}
    measures, histories = counted([adult, child])
    people = measures.by_birth_year["people"]
    rates, lived = histories.visits_a_year(people, measures.last_day, 0, 14)
    assert lived.tolist() == [0.5, 0, 0] and rates[:, 0].tolist() == [4, 2] and np.isnan(rates[0, 1])
    rates, lived = histories.visits_a_year(people, measures.last_day, 45, 64)
    assert lived.tolist() == [0, 5, 0] and rates[:, 1].tolist() == [3, 3]

    # A longer file counts with its last five whole years: 2023 ends too early, and what is older is left out.
    longer = {**adult, "diagnosis_dates": [f"{2005 + i}0315" for i in range(14)] + ["20230701"]}
    measures, histories = counted([longer])
    years, share = histories.covered(measures.last_day)
    assert (years + YEARS.start).tolist() == [2018, 2019, 2020, 2021, 2022] and (share == 1).all()
    assert measures.reference_year == 2023 and measures.last_year == 2022


def test_filler_dates_decide_neither_ages_nor_years() -> None:
    dates = ["00010101", "20200101", "20241231", "99991231"]
    patient = record(diagnoses=["I10"] * 4, diagnosis_dates=dates, drugs=[], prescription_dates=[])
    measures, histories = counted([patient])
    assert measures.reference_year == measures.last_year == 2024
    assert (histories.first_day, measures.last_day) == (day_number(date(2020, 1, 1)), day_number(date(2024, 12, 31)))


def test_shifted_years_count() -> None:
    dates = ["21610901", "21780301"]
    patient = record(birth_year=2105, diagnoses=["I10"] * 2, diagnosis_dates=dates, drugs=[], prescription_dates=[])
    measures, histories = counted([patient])
    assert (histories.first_day, measures.last_day) == (day_number(date(2161, 9, 1)), day_number(date(2178, 3, 1)))
    assert measures.last_year == 2177 and measures.ages[2105 - YEARS.start] == measures.reference_year - 2105


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_a_verdict_tells_noise_from_error() -> None:
    chance = np.linspace(0, 0.2, 401)

    def verdict(value: float, chance: np.ndarray = chance, at_least: bool = False) -> str:
        return judged("key", "name", value, "share", 0.1, chance, "", at_least).verdict

    assert verdict(0.1) == MET and verdict(0.19) == BY_CHANCE and verdict(0.199) == MISSED
    assert verdict(0.11, chance / 10) == MISSED
    assert verdict(math.nan) == verdict(0.1, np.full(9, np.nan)) == TOO_FEW
    assert verdict(0.2, at_least=True) == MET and verdict(0.01, at_least=True) == BY_CHANCE
    assert verdict(0.004, at_least=True) == MISSED


def report_on(
    folder: Path,
    records: list[dict[str, Any]],
    plots: bool = False,
    min_cell: int | None = 0,
    keep: bool = False,
    **meta: Any,
) -> dict[str, Any]:
    """Write records and report on them; return report.json, which must hold no NaN."""
    path = write_records(folder / "p.json", records)
    if meta:
        (folder / "p.meta.json").write_text(json.dumps({"format": "exmed-bert-synthetic-patients", **meta}))
    given = ReportSettings(input=path, output_dir=folder / "report", min_cell=min_cell, keep_implausible_dates=keep)
    with pytest.MonkeyPatch.context() as patch:
        if not plots and report.draw is draw:
            patch.setattr(report, "draw", lambda comparisons: {})  # most of a small report's time
        report.run(Resolved(given, dict.fromkeys(ReportSettings.model_fields, "default")))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    return json.loads((folder / "report" / "report.json").read_text(), parse_constant=refuse)


def rows_of(made: dict[str, Any], section: str, **where: Any) -> list[dict[str, Any]]:
    rows = made["comparisons"][section]["rows"]
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on 400 women and 400 men of 60 in California, whose values are known, with planted violations."""
    patients = []
    for i in range(800):
        female = i < 400
        # A quarter has hypertension, half of those diabetes; metformin goes to 80 % of the latter, twice in 2025.
        diagnoses = ["I10", "E11.9"] if i % 8 == 0 else ["I10"] if i % 4 == 0 else ["J06.9"]
        drugs = ["A10BA02", "A10BA02"] if i % 8 == 0 and i % 40 else ["J01CA04"]
        patients.append(
            record(
                f"p{i}",
                birth_year=1965,
                sex="FEMALE" if female else "MALE",
                diagnoses=diagnoses,
                diagnosis_dates=["2021-01-01" if i == 1 else "2025-06-15"] * len(diagnoses),
                drugs=drugs,
                prescription_dates=["2025-12-31" if i == 2 else "2025-06-15", "2025-09-13"][: len(drugs)],
                had_plos=i % 10 == 0,
            )
        )
    patients[3] |= {"diagnoses": ["C61", "J06.9"], "diagnosis_dates": ["2025-01-01"] * 2}  # a woman
    dates = ["2020-03-31", "2025-01-01"]
    patients[5] |= {"birth_year": 2024, "diagnoses": ["U07.1", "F90.9"], "diagnosis_dates": dates}
    return report_on(tmp_path_factory.mktemp("planted"), patients, keep=True)  # one has an event before birth


def test_metrics_of_a_file_whose_values_are_known(planted: dict[str, Any]) -> None:
    metrics = planted["metrics"]
    assert planted["input"]["patients"] == 800 and planted["tables"]["digest"] == TABLES.digest
    assert planted["input"]["reference_year"] == 2025

    people = TABLES.demographics.people / TABLES.demographics.people.sum()
    missing = 1 - people[60:65].sum()  # all but one are in this bracket, half of them women
    assert metrics["age_and_sex"]["value"] == pytest.approx(missing, abs=0.02)
    (california,) = rows_of(planted, "states", state="CA")
    assert california["generated"] == 1 and metrics["states"]["value"] == pytest.approx(-california["published"] + 1)
    assert metrics["age_and_sex"]["verdict"] == metrics["states"]["verdict"] == MISSED

    (women,) = rows_of(planted, "prevalence", code="I10", band="45-64", sex="female")
    share = DIAGNOSES.prevalence[DIAGNOSES.codes.index("I10"), 2, 1]
    assert (women["patients"], women["cases"], women["generated"]) == (399, 100, pytest.approx(100 / 399))
    assert women["expected"] == pytest.approx(399 * share) and women["published"] == pytest.approx(share)
    assert women["error"] == pytest.approx(100 / (399 * share) - 1) and women["source"]
    enough = [row for row in rows_of(planted, "prevalence") if row["expected"] >= 200]
    assert metrics["prevalence_median_error"]["value"] == pytest.approx(
        np.median([abs(row["error"]) for row in enough])
    )
    assert metrics["prevalence_worst_error"]["verdict"] == TOO_FEW

    (metformin,) = rows_of(planted, "drugs_given_diagnoses", code="A10BA02", diagnosis="E11.9")
    assert (metformin["patients"], metformin["users"], metformin["generated"]) == (100, 80, 0.8)
    errors = [abs(row["error"]) for row in rows_of(planted, "drugs_given_diagnoses") if row["patients"]]
    assert metrics["drugs_given_diagnoses"]["value"] == pytest.approx(np.mean(errors))
    (users,) = rows_of(planted, "drug_users", code="A10BA02")
    assert users["generated"] == users["generated_1yr"] == 0.1 and users["users"] == 80
    assert users["error"] == pytest.approx(0.1 / users["published"] - 1)
    (fills,) = rows_of(planted, "refills", code="A10BA02")
    assert (fills["generated"], fills["mean"], fills["median"], fills["gaps"]) == (2, 90, 90, 80)
    assert metrics["plos_share"]["value"] == 0.1 and metrics["codes_per_visit"]["value"] > 1
    assert metrics["outside"]["value"] == 0 and "novel" not in metrics


def test_planted_violations_are_found(planted: dict[str, Any]) -> None:
    found = {(row["code"], row["rule"]): row["events"] for row in rows_of(planted, "violations")}
    expected = {("C61", "not in this sex"): 1, ("U07.1", "before it was valid"): 1, ("U07.1", "not at this age"): 1}
    if DIAGNOSES.limits.min_age[DIAGNOSES.codes.index("F90.9")] > 1:
        expected["F90.9", "not at this age"] = 1
    assert found == expected
    metric = planted["metrics"]["violations"]
    assert metric["value"] == sum(expected.values()) and metric["verdict"] == MISSED


def test_a_file_that_follows_the_tables_is_not_called_wrong_for_its_size(tmp_path: Path) -> None:
    rng, people = np.random.default_rng(1), TABLES.demographics.people
    cells = rng.choice(people.size, 250, p=(people / people.sum()).ravel())
    margin = np.add.reduceat(people.sum(axis=1), tables.BAND_STARTS) @ TABLES.demographics.state_given_band
    states = rng.choice(TABLES.demographics.states, 250, p=margin / margin.sum()).tolist()
    patients = [
        record(i, birth_year=2023 - int(cells[i]) // 2, sex=tables.SEXES[cells[i] % 2], patient_state=states[i])
        for i in range(250)
    ]
    metrics = report_on(tmp_path, patients)["metrics"]
    for key in ("age_and_sex", "states"):
        assert metrics[key]["value"] > 10 * metrics[key]["target"] and metrics[key]["verdict"] == BY_CHANCE


def test_comorbidity_of_a_planted_odds_ratio(tmp_path: Path) -> None:
    pattern = [["I10", "E11.9"]] * 60 + [["I10"]] * 40 + [["E11.9"]] * 50 + [["J06.9"]] * 100
    patients = [
        record(i, diagnoses=codes_of, diagnosis_dates=["20231215"] * len(codes_of))
        for i, codes_of in enumerate(pattern)
    ]
    made = report_on(tmp_path, patients)
    row = next(row for row in rows_of(made, "comorbidity") if {"I10", "E11.9"} == set(row["pair"].split(" with ")))
    ratio = 60 * 100 / (40 * 50)
    published = DIAGNOSES.odds_ratios[DIAGNOSES.codes.index("I10"), DIAGNOSES.codes.index("E11.9")]
    assert (
        row["both"] == 60 and row["generated"] == pytest.approx(ratio) and row["published"] == pytest.approx(published)
    )
    assert row["error"] == pytest.approx(math.log(ratio / published)) and row["source"]
    assert made["metrics"]["comorbidity_correlation"]["verdict"] == TOO_FEW, "one pair makes no correlation"


# Files from elsewhere ------------------------------------------------------------------------------------------------

HOSTILE = '<script>alert("x")</script>&'


def test_a_file_from_elsewhere(tmp_path: Path) -> None:
    bare = {"birth_year": 1950, "sex": None, "patient_state": None, "drugs": [], "prescription_dates": []}
    first = {"diagnoses": ["i10", "Z99.9"], "diagnosis_dates": ["2010-05-01", "2019-05-01"]}
    second = {"sex": "w", "patient_state": "ny", "diagnoses": [HOSTILE], "diagnosis_dates": ["2012-05-01"]}
    third = {"sex": "x", "patient_state": HOSTILE, "diagnoses": [], "diagnosis_dates": []}
    patients = [{"patient_id": f"a-{i}", **bare, **own} for i, own in enumerate((first, second, third))]
    made = report_on(tmp_path, patients, plots=True)
    assert made["input"]["patients"] == 3 and made["input"]["unknown_sex"] == 2
    assert (made["input"]["first_day"], made["input"]["last_day"]) == ("2010-05-01", "2019-05-01")
    assert any("span 9.0 years" in note for note in made["notes"]) and any("2 of 3" in note for note in made["notes"])
    assert {row["code"] for row in rows_of(made, "unlisted")} == {"Z99.9", HOSTILE}
    assert made["metrics"]["outside"]["value"] == pytest.approx(2 / 3)
    assert rows_of(made, "states", state="NY")[0]["generated"] == 1
    text = made["comparisons"]["states"]["text"]
    assert "1 patients without a state" in text and "1 of a state" in text
    assert made["metrics"]["plos_share"]["value"] is None
    assert "3 patients carry no label" in made["comparisons"]["prolonged_stay"]["text"]

    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page and page.count("<script") == 1, "the page's own"
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;" in page


def test_a_file_with_nothing_but_filler_dates(tmp_path: Path) -> None:
    filler = {"diagnosis_dates": ["00010101"] * 3, "prescription_dates": ["00010101"] * 2}
    with pytest.raises(InputError, match="placeholder day; --keep-implausible-dates keeps them"):
        report_on(tmp_path, [record(**filler)])
    made = report_on(tmp_path, [record(**filler)], keep=True)
    assert made["input"]["first_day"] is None and made["input"]["patients"] == 1


def test_novel_codes_count_as_their_sources(tmp_path: Path) -> None:
    meta = {
        "tables": "of another time",
        "seed": 7,
        "options": {"novel_prob": 0.25},
        "counts": {"patients": 2},
        "bounds": {"diagnoses filled up": 1, "later": {"kind": "of figure"}},
        "novel_codes": {"E11.95": {"source": "E11.9", "system": "icd"}},
    }
    patients = [record(0, diagnoses=["E11.95", "Q99.9"], diagnosis_dates=["20231215"] * 2)]
    made = report_on(tmp_path, patients, **meta)
    assert rows_of(made, "prevalence", code="E11.9", band="45-64", sex="female")[0]["cases"] == 1
    assert made["metrics"]["novel"]["value"] == 0.25 and "25.00%" in made["metrics"]["novel"]["note"]
    assert [row["code"] for row in rows_of(made, "unlisted")] == ["Q99.9"]
    assert any("of another time" in note for note in made["notes"]) and any(
        "tells of 2" in note for note in made["notes"]
    )
    said = {row["name"]: row["patients"] for row in rows_of(made, "bounds") if row["from"] == "meta file"}
    assert said == {"diagnoses filled up": 1, "later: {'kind': 'of figure'}": None}
    assert rows_of(made, "bounds", name="exactly 2 prescriptions")[0]["patients"] == 1
    assert made["metrics"]["prescriptions_at_a_bound"]["value"] == 1
    assert made["metrics"]["diagnoses_at_a_bound"]["value"] == 0


def test_a_broken_meta_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.meta\.json: novel_codes"):
        report_on(tmp_path, [record()], novel_codes={"E11.95": 3})


# The page ------------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Everything of a page that a browser could load or follow."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.found: list[tuple[str, str, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: set[str | None] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.add(dict(attrs).get("id"))
        if tag in ("img", "svg"):
            self.images.append(dict(attrs))
        self.found += [(tag, name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "style")]


@pytest.mark.slow
def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    made = report_on(tmp_path, [record(i, birth_year=1930 + i) for i in range(40)], plots=True)
    folder = tmp_path / "report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = Links(page)
    for tag, name, value in links.found:
        if tag in ("img", "image"):
            assert name in ("src", "href") and value.startswith("data:image/png;base64,")
        else:
            assert (tag, name) in (("a", "href"), ("use", "href")) and value[0] == "#" and value[1:] in links.ids
    assert not {"link", "iframe", "object"} & links.tags.keys() and links.tags["script"] == 1
    assert page.count("url(") == page.count("url(#")
    assert "default-src 'none'" in page and 'name="viewport"' in page
    assert all(image["aria-label"] for image in links.images)

    plots = {path.stem for path in folder.glob("*.png")}
    assert len(plots) == len(links.images) >= 10 and plots <= made["comparisons"].keys()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert {path.name for path in folder.iterdir() if path.suffix != ".png"} == {"report.html", "report.json"}
    for compared in made["comparisons"].values():
        assert compared["title"] in page
    for metric in made["metrics"].values():
        assert metric["verdict"] in page
    report_on(tmp_path, [record(i, birth_year=1930 + i) for i in range(40)], plots=True)
    assert (folder / "report.html").read_text(encoding="utf-8") == page, "the same file, the same page"


def test_whatever_a_page_is_given_is_escaped() -> None:
    hostile = '"><img src=x onerror=y>'
    compared = Comparison(hostile, hostile, hostile, hostile, [Column("a", hostile)], [[hostile]] * 30)
    plots = {hostile: Plot(b"png", hostile)}
    links = Links(html(Report(hostile, [(hostile, hostile)], [hostile], sections([compared]), plots)))
    assert links.tags["img"] == 1 and links.images[0]["alt"] == hostile


def test_the_furthest_off_stand_open() -> None:
    compared = Comparison(
        "s", "", "", "", [Column("a", "A"), Column("error", "E", "number")], [["x", 1], ["y", None], ["z", -3]]
    )
    assert compared.worst(2) == [["z", -3], ["x", 1]]


def test_rows_of_few_expected_cases_are_in_the_file_alone() -> None:
    columns = [Column("a", "A"), Column("expected", "E", "count"), Column("error", "Error", "relative")]
    compared = Comparison("s", "", "", "", columns, [["few", 0.3, 9.0], ["enough", 5.0, 0.1]])
    assert compared.telling.rows == [["enough", 5.0, 0.1]] and compared.telling.telling == compared.telling
    section = sections([compared])[1]
    assert [row[0] for table in section.tables for row in table.rows] == ["enough"] and section.notes[0].endswith(
        " here: 1."
    )


# The step as a whole -------------------------------------------------------------------------------------------------


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_on(tmp_path, [record(i) for i in range(40)], plots=True)
    folder = tmp_path / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("draw", "write_json"):  # while it is made, and while it is written
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(report, name, dies)
            report_on(tmp_path, [record(sex="MALE")])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    report_on(tmp_path, [record(sex="MALE")])
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json"}, "plots of the old one remain"


def test_every_comparison_has_a_key_of_its_own(planted: dict[str, Any]) -> None:
    assert len(planted["comparisons"]) == len(COMPARISONS)
    assert all(metric["comparison"] in planted["comparisons"] for metric in planted["metrics"].values())


@pytest.mark.slow
def test_the_script_reports_on_generated_patients(tmp_path: Path) -> None:
    done = run_here("generate_synthetic_patients.py", "-n", 300, "-o", "p.jsonl.gz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_script(SCRIPT, "--input", "p.jsonl.gz", "--output-dir", "out/report", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    for shown in ("300", TABLES.digest, "age and sex, total variation distance", "out/report/report.html"):
        assert shown in done.stdout
    made = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert made["input"]["patients"] == 300 and made["metrics"]["violations"]["verdict"] == MET
    assert made["metrics"]["outside"]["value"] == 0 and made["metrics"]["novel"]["value"] > 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--input", "none.json"], ["none.json", "not found"]),
        (["--input", "p.csv"], ["p.csv", "not recognized"]),
        (["--input", "broken.json"], ["broken.json", "not JSON"]),
        (["--input", "silent.json"], ["silent.json", "no patient has a diagnosis or a prescription"]),
        (["--input", "p.json", "--output-dir", "p.csv"], ["p.csv", "expected a folder"]),
    ],
)
def test_refusals_in_one_line(
    tmp_path: Path, arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "p.json", [record()])
    empty = {"diagnoses": [], "diagnosis_dates": [], "drugs": [], "prescription_dates": []}
    write_records(tmp_path / "silent.json", [record(**empty)])
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "p.csv").write_text("patient_id")
    values = dict(zip(("input", "output_dir"), (tmp_path / name for name in arguments[1::2]), strict=False))
    values.setdefault("output_dir", tmp_path / "report")
    with pytest.raises(InputError) as refused:
        report.run(Resolved(ReportSettings(**values), dict.fromkeys(ReportSettings.model_fields, "flag")))
    assert all(part in str(refused.value) for part in parts) and not (tmp_path / "report" / "report.html").exists()


def test_the_script_refuses_in_one_line(tmp_path: Path) -> None:
    result = run_here(SCRIPT, "--input", "none.json", cwd=tmp_path)
    assert_one_line_error(result, 1, "none.json", "not found")
    assert not list(tmp_path.iterdir())


# Patients that we did not generate -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The report on 700 patients, with all counts and with those of fewer than 11 hidden."""
    folder = tmp_path_factory.mktemp("own")
    generate.run(Resolved(GenerateSettings(num_patients=700, output=folder / "made.json"), {}))
    patients = json.loads((folder / "made.json").read_text())
    for patient in patients[:3]:
        patient |= {"sex": None, "patient_state": None, "had_plos": None}
    patients[0]["diagnoses"][0] = "JANE DOE"
    reports = []
    for name, min_cell in (("all", 0), ("few", None)):
        (folder / name).mkdir()
        reports.append(report_on(folder / name, patients, plots=True, min_cell=min_cell))
        reports[-1]["page"] = (folder / name / "report" / "report.html").read_text(encoding="utf-8")
    return reports


def told(value: Any) -> Count:
    """Return a count of a report as a range."""
    if isinstance(value, int | float):
        return Count(int(value), int(value))
    low, _, high = value.replace(",", "").partition(" to ")
    return Count(int(low), int(high)) if high else Count(1, int(low.removeprefix("<")) - 1)


def test_small_counts_are_hidden_and_so_are_their_rests(two_reports: list[dict[str, Any]]) -> None:
    whole, few = two_reports
    hidden = 0
    for key, comparison in few["comparisons"].items():
        counts = [column["key"] for column in comparison["columns"] if column["kind"] == "count"]
        counts = [name for name in counts if key != "lengths" and name not in ("expected", "person_years")]
        known = {str(row[comparison["columns"][0]["key"]]): row for row in whole["comparisons"][key]["rows"]}
        for row, real in zip(comparison["rows"], whole["comparisons"][key]["rows"], strict=False):
            if key == "unlisted":
                real = known[row["code"]]
            if key == "prevalence":
                (real,) = rows_of(whole, key, code=row["code"], band=row["band"], sex=row["sex"])
            for name in counts:
                count = told(row[name])
                assert count.low <= real[name] <= count.high, (key, row, real)
                assert not count.is_exact or not 0 < count.low < 11, (key, row)
                hidden += not count.is_exact
            if any(not told(row[name]).is_exact for name in counts):
                assert {row.get(name) for name in ("generated", "share", "error", "deviation")} == {None}, (key, row)
    assert hidden > 100
    for key in ("states", "age_and_sex"):
        rows = few["comparisons"][key]["rows"]
        assert sum(not told(row["patients"]).is_exact for row in rows) >= 2, "one alone would be all less the others"
        shares = [row["generated"] * 700 / row["patients"] for row in rows if row["generated"]]
        assert shares == pytest.approx([1] * len(shares)), "shares of 697 would tell of 3 who are left out"
    assert few["input"]["unknown_sex"] == "<11" and few["input"]["patients"] == 700


def test_no_patient_stands_in_the_page(two_reports: list[dict[str, Any]]) -> None:
    whole, few = two_reports
    assert "JANE DOE" in whole["page"] and "JANE DOE" not in few["page"] + json.dumps(few["comparisons"])
    assert len(whole["input"]["first_day"]) == 10 and len(few["input"]["first_day"]) == 4
    assert all(row["most"] is None for row in few["comparisons"]["lengths"]["rows"])
    for comparison in few["comparisons"].values():
        series = comparison["series"]
        for counts in [*series.get("histograms", {}).values(), *series.get("events", {}).values()]:
            assert all(n % 11 == 0 for n in counts)
    assert "Counts from 1 to 10 are hidden" in few["page"] and "are hidden" not in whole["page"]
    aggregated = ("age_and_sex", "prevalence_median_error", "drugs_given_diagnoses", "users_5yr")
    assert [few["metrics"][key] for key in aggregated] == [whole["metrics"][key] for key in aggregated]
    assert few["metrics"]["plos_share"]["value"] is None, "it would tell how many carry no label"
