"""How the population is drawn: conditions together, smooth in age, pathways, seasons, lines of therapy, departures."""

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from exmed_bert.console import InputError
from exmed_bert.data.patient import day_number
from exmed_bert.reference import tables
from exmed_bert.synthetic import fit, fitted
from exmed_bert.synthetic.calendar import Calendar
from exmed_bert.synthetic.conditions import correlation_root, draw_conditions, prevalence_by_age
from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.people import YOUNGEST, Window, draw_people, possible_days
from exmed_bert.synthetic.prescriptions import draw_prescriptions
from exmed_bert.synthetic.visits import draw_diagnoses

TABLES = tables.load()
DIAGNOSES, DRUGS = TABLES.diagnoses, TABLES.drugs
FITTED = fitted.load(TABLES)
WINDOW = Window.until(date(2025, 12, 31))
N = 6000
LATE, EARLY = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@pytest.fixture(scope="module")
def people():
    return draw_people(np.random.default_rng(1), N, TABLES.demographics, WINDOW)


@pytest.fixture(scope="module")
def conditions(people) -> tuple[np.ndarray, np.ndarray]:
    return draw_conditions(np.random.default_rng(2), people, WINDOW, TABLES, FITTED)


@pytest.fixture(scope="module")
def diagnoses(people, conditions) -> Events:
    rng = np.random.default_rng(2)
    return draw_diagnoses(rng, people, conditions[0], possible_days(people, DIAGNOSES.limits, WINDOW), TABLES, WINDOW)


@pytest.fixture(scope="module")
def prescriptions(people, conditions, diagnoses) -> Events:
    days = possible_days(people, DRUGS.limits, WINDOW)
    seen = np.unique(diagnoses.patients)
    assert len(seen) > 0.95 * N
    everyone = Events(
        np.concatenate([diagnoses.patients, np.setdiff1d(np.arange(N), seen)]),
        np.concatenate([diagnoses.codes, np.full(N - len(seen), DIAGNOSES.codes.index("Z23"))]),
        np.concatenate([diagnoses.days, people.last_days[np.setdiff1d(np.arange(N), seen)]]),
    )
    return draw_prescriptions(np.random.default_rng(3), people, everyone, conditions[1], days, TABLES, FITTED)


def first_days(events: Events, codes: tuple[str, ...], code: str) -> np.ndarray:
    """Return each patient's first day of a code, (N,); LATE where there is none."""
    first = np.full(N, LATE)
    which = events.codes == codes.index(code)
    np.minimum.at(first, events.patients[which], events.days[which])
    return first


def last_days(events: Events, codes: tuple[str, ...], code: str) -> np.ndarray:
    """Return each patient's last day of a code, (N,); EARLY where there is none."""
    last = np.full(N, EARLY)
    which = events.codes == codes.index(code)
    np.maximum.at(last, events.patients[which], events.days[which])
    return last


# People --------------------------------------------------------------------------------------------------------------


def test_quotas_keep_a_small_cohort_like_the_census() -> None:
    census = TABLES.demographics.people / TABLES.demographics.people.sum()
    people = draw_people(np.random.default_rng(0), 1000, TABLES.demographics, WINDOW)
    drawn = np.zeros(census.shape)
    np.add.at(drawn, (people.ages, people.sexes), 1 / 1000)
    # The cumulated shares are met to within one patient, which independent draws miss by some ten.
    assert np.abs(np.cumsum(drawn) - np.cumsum(census)).max() < 1.5 / 1000
    assert (np.diff(people.ages) < 0).mean() > 0.4, "in random order"


def test_some_are_not_observed_to_the_end(people, diagnoses, prescriptions) -> None:
    early = people.last_days < WINDOW.end
    years = (WINDOW.end - WINDOW.start - 180) / 365.25
    expected = 1 - np.exp(-years * TABLES.demographics.departures[(people.ages - 2).clip(0), people.sexes])
    assert early.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert early[people.ages >= 80].mean() > 2 * early[people.ages < 60].mean()
    assert (people.last_days >= people.birth_days + YOUNGEST).all()
    for events in (diagnoses, prescriptions):
        assert (events.days <= people.last_days[events.patients]).all()
    share = people.observed_share(WINDOW)
    assert share.max() == 1 and share.min() > 0.02


# Conditions ----------------------------------------------------------------------------------------------------------


def test_prevalence_by_age_keeps_the_bands_mean_and_is_smooth() -> None:
    by_age = prevalence_by_age(TABLES, FITTED)  # (ages, 2, K)
    weight = TABLES.demographics.people[:, :, None]
    mean = np.add.reduceat(by_age * weight, tables.BAND_STARTS, axis=0)
    mean /= np.add.reduceat(weight, tables.BAND_STARTS, axis=0)
    expected = np.moveaxis(FITTED.prevalence, 0, 2)
    whole = by_age.max(axis=0) < 0.97  # where no age is at the limit
    assert np.allclose(mean[:, whole], expected[:, whole], rtol=1e-6, atol=1e-9)
    hypertension = by_age[:, :, DIAGNOSES.codes.index("I10")]
    assert (np.diff(hypertension[5:90], axis=0) > -0.01).all(), "rises with age"
    steps = np.abs(np.diff(hypertension, axis=0))
    assert steps.max() < 0.06, "no step from one band to the next: in the table it is 0.28"
    prenatal = by_age[:, 1, DIAGNOSES.codes.index("Z34.90")]
    assert prenatal[25] > 3 * prenatal[44] and prenatal[10] == 0


def test_scores_have_the_fitted_graph() -> None:
    root = correlation_root(FITTED)
    correlation = root @ root.T
    assert np.allclose(np.diag(correlation), 1)
    precision = np.linalg.inv(correlation)
    scale = np.sqrt(np.diag(precision))
    partial = -precision / np.outer(scale, scale)
    np.fill_diagonal(partial, 0)
    assert np.allclose(partial, FITTED.partial_correlations, atol=1e-6)
    assert (partial[(DIAGNOSES.odds_ratios == 1) & ~np.eye(len(partial), dtype=bool)] < 1e-6).all()


def test_covariance_selection_gives_the_correlations_of_the_pairs() -> None:
    correlation = fit.start_correlations(TABLES)
    pairs = DIAGNOSES.pairs
    partial = fit.covariance_selection(correlation, pairs)
    covariance = np.linalg.inv(np.eye(len(partial)) - partial)
    scale = np.sqrt(np.diag(covariance))
    found = (covariance / np.outer(scale, scale))[tuple(pairs.T)]
    assert np.allclose(found, correlation[tuple(pairs.T)], atol=1e-5)


def test_contradicting_correlations_are_refused() -> None:
    wrong = fitted.Fitted(FITTED.prevalence, np.full((3, 3), 0.9), FITTED.given, FITTED.without_diagnosis)
    with pytest.raises(InputError, match="contradict"):
        correlation_root(wrong)


def test_who_is_observed_for_less_has_fewer_episodes(people) -> None:
    rng = np.random.default_rng(4)
    has = np.mean([draw_conditions(rng, people, WINDOW, TABLES, FITTED)[0] for _ in range(20)], axis=0)
    short = people.observed_share(WINDOW) < 0.5
    adults = (people.ages > 30) & (people.ages < 60)
    cold, pressure = (DIAGNOSES.codes.index(code) for code in ("J06.9", "I10"))
    assert has[short & adults, cold].mean() < 0.6 * has[~short & adults, cold].mean()
    assert has[short & adults, pressure].mean() > 0.8 * has[~short & adults, pressure].mean()


# Visits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pathway", DIAGNOSES.pathways, ids=lambda p: DIAGNOSES.codes[p.earlier] + DIAGNOSES.codes[p.later]
)
def test_a_pathways_earlier_condition_begins_first(diagnoses: Events, pathway: tables.Pathway) -> None:
    earlier, later = DIAGNOSES.codes[pathway.earlier], DIAGNOSES.codes[pathway.later]
    first, then = (first_days(diagnoses, DIAGNOSES.codes, code) for code in (earlier, later))
    both = (first < LATE) & (then < LATE)
    assert both.sum() > 2
    assert (first <= then)[both].mean() > 0.99
    if pathway.then == "ends":
        assert (last_days(diagnoses, DIAGNOSES.codes, earlier) < then)[both].mean() > 0.95


def test_a_condition_that_fades_is_coded_more_rarely(diagnoses: Events) -> None:
    kinds = ("E11.9", "E11.65")
    counts = np.stack(
        [np.bincount(diagnoses.patients[diagnoses.codes == DIAGNOSES.codes.index(code)], minlength=N) for code in kinds]
    )
    both, alone = counts.min(axis=0) > 0, (counts[0] > 0) & (counts[1] == 0)
    assert counts[0, both].mean() < 0.7 * counts[0, alone].mean()


def test_conditions_of_a_clinic_share_its_visits(diagnoses: Events) -> None:
    def together(one: str, other: str) -> float:
        days = []
        for code in (one, other):
            which = diagnoses.codes == DIAGNOSES.codes.index(code)
            days.append(set(zip(diagnoses.patients[which].tolist(), diagnoses.days[which].tolist(), strict=True)))
        has = {patient for patient, _ in days[0]} & {patient for patient, _ in days[1]}
        visits = [day for day in days[0] | days[1] if day[0] in has]
        return len(days[0] & days[1]) / len(visits)

    assert together("I10", "E78.5") > 0.4, "both in primary care"
    assert together("I10", "H25.13") < 0.25, "in primary care and in eye care"


def test_days_follow_seasons_and_epidemics(diagnoses: Events) -> None:
    def months(code: str) -> np.ndarray:
        days = diagnoses.days[diagnoses.codes == DIAGNOSES.codes.index(code)]
        return days.astype("datetime64[D]").astype("datetime64[M]").astype(int)

    colds = np.bincount(months("J06.9") % 12, minlength=12)
    assert colds[[0, 1, 11]].sum() > 1.6 * colds[[5, 6, 7]].sum()
    covid = np.bincount(months("U07.1") - (2021 - 1970) * 12, minlength=60)
    assert covid.argmax() == 12, "January 2022"
    assert covid[12] > 8 * np.median(covid)


def test_a_calendar_keeps_to_the_days_and_has_no_impossible_one() -> None:
    rng = np.random.default_rng(5)
    when = Calendar(TABLES.schedule, WINDOW)
    codes = rng.integers(0, len(DIAGNOSES.codes), 5000)
    first = rng.integers(WINDOW.start, WINDOW.end, 5000)
    last = np.minimum(first + rng.integers(0, 400, 5000), WINDOW.end)
    drawn = when.draw(rng, codes, first, last)
    assert ((drawn >= first) & (drawn <= last)).all()
    years_before = Calendar(TABLES.schedule, Window.until(date(2003, 6, 30)))
    day = np.full(10, day_number(date(2001, 1, 1)))
    covid = DIAGNOSES.codes.index("U07.1")
    assert ((years_before.draw(rng, np.full(10, covid), day, day + 50) - day) <= 50).all(), "before its time: evenly"
    assert Calendar(TABLES.schedule, Window.until(date(2090, 6, 30))), "after the table: as in its last years"


# Prescriptions -------------------------------------------------------------------------------------------------------


def test_second_line_follows_first_line(prescriptions: Events) -> None:
    metformin = first_days(prescriptions, DRUGS.codes, "A10BA02")
    begun = [first_days(prescriptions, DRUGS.codes, second) for second in ("A10BB07", "A10BJ06", "A10BK03", "A10AE04")]
    both = [(metformin < LATE) & (begin < LATE) for begin in begun]
    assert np.concatenate([(metformin <= begin)[of] for begin, of in zip(begun, both, strict=True)]).mean() > 0.9
    assert np.sum(both) > 0.5 * np.sum([begin < LATE for begin in begun]), "mostly after metformin"


def test_of_a_class_one_drug_at_a_time(prescriptions: Events) -> None:
    overlaps = pairs = 0
    for group in range(DRUGS.classes.max() + 1):
        members = [DRUGS.codes[i] for i in np.flatnonzero(DRUGS.classes == group)]
        for i, one in enumerate(members):
            for other in members[i + 1 :]:
                first = [first_days(prescriptions, DRUGS.codes, code) for code in (one, other)]
                last = [last_days(prescriptions, DRUGS.codes, code) for code in (one, other)]
                both = (first[0] < LATE) & (first[1] < LATE)
                pairs += both.sum()
                overlaps += (both & (first[0] <= last[1]) & (first[1] <= last[0])).sum()
    assert pairs > 100
    assert overlaps < 0.05 * pairs


def test_some_fill_all_drugs_on_common_days(people, prescriptions: Events) -> None:
    events = prescriptions[DRUGS.long_term[prescriptions.codes]]
    on_grid = (events.days - people.birth_days[events.patients]) % 30 == 0
    share = np.bincount(events.patients, on_grid, N)[counts := np.bincount(events.patients, minlength=N) >= 8]
    share /= np.bincount(events.patients, minlength=N)[counts]
    assert 0.35 < (share > 0.5).mean() < 0.65, "about half of the patients"
    assert ((share > 0.2) & (share < 0.6)).mean() < 0.3, "either mostly or by chance"


# The fitted values ---------------------------------------------------------------------------------------------------


def test_the_fit_belongs_to_the_tables_and_met_its_targets() -> None:
    content = json.loads(fitted.PATH.read_text())
    assert content["tables"] == TABLES.drawn_digest
    errors = content["errors"]
    assert errors["prevalence, median relative error, 200 cases and more"] <= 0.03
    assert errors["prevalence, worst relative error, 2000 cases and more"] <= 0.1
    assert errors["log odds ratio, correlation"] >= 0.95
    assert errors["log odds ratio, median absolute error"] <= 0.15
    assert errors["P(drug | diagnosis), mean absolute error"] <= 0.02
    assert errors["users of a drug, median relative error"] <= 0.1


def test_values_fitted_to_other_tables_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    shutil.copytree(tables.FOLDER, folder)
    path = folder / "plos.csv"
    path.write_text(path.read_text().replace("chronic_condition,0.08", "chronic_condition,0.09"))
    assert fitted.load(tables.load(folder)), "the fit does not depend on this one"
    path = folder / "clinics.csv"
    path.write_text(path.read_text().replace("urology,1.3", "urology,1.4"))
    tables.load.cache_clear()
    with pytest.raises(InputError, match=r"fitted to other tables.*python -m exmed_bert\.synthetic\.fit"):
        fitted.load(tables.load(folder))


def test_a_fit_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    fitted.save(FITTED, TABLES, {"x": 1.0}, tmp_path / "fitted.json")
    again = fitted.load(TABLES, tmp_path / "fitted.json")
    for name in ("prevalence", "partial_correlations", "given", "without_diagnosis"):
        assert np.allclose(getattr(again, name), getattr(FITTED, name), atol=1e-4)


def test_the_fit_moves_the_figures_toward_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "PATH", tmp_path / "fitted.json")
    monkeypatch.setattr(fit.store, "save", lambda *arguments: saved.extend(arguments))
    saved: list[object] = []
    fit.run(patients=4000, rounds=3, workers=1)
    errors = saved[2]
    assert errors["log odds ratio, correlation"] > 0.9
    assert errors["P(drug | diagnosis), mean absolute error"] < 0.04, "0.055 with the tables' probabilities as they are"
