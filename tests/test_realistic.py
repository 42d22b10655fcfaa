"""Realistic patients: observed for a time, some die, no bounds, drugs stop; and the truth that they were drawn from."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.console import InputError
from exmed_bert.data.patient import NO_DAY, day_number
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.writers import Fields, write_patients
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import BAND_STARTS, load
from exmed_bert.synthetic.conditions import prevalence_by_age
from exmed_bert.synthetic.fitted import load_realistic
from exmed_bert.synthetic.life import (
    LASTING,
    NEVER,
    Early,
    begins_within,
    early_deaths,
    first_events,
    log_hazard_ratios,
)
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.population import BLOCK, generate_block
from exmed_bert.synthetic.realistic import Drawn, draw, generator, lives
from exmed_bert.synthetic.truth import (
    DEATH,
    LONG_STAY,
    Truth,
    attainable,
    conditions_of,
    of_prolonged_stays,
    truth,
)

TABLES = load()
FIGURES = figures_of.load(TABLES)
CODES = TABLES.diagnoses.codes
END = date(2025, 12, 31)
SEED, BLOCKS = 5, 12


def run(command: str, *words: object) -> str:
    """Run a command as its script does; return what it printed."""
    result = CliRunner().invoke(script(COMMANDS[command]), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("realistic")
    run("generate", "-n", 2500, "-s", SEED, "--realistic", "-o", path / "patients.jsonl")
    return path


@pytest.fixture(scope="module")
def meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "patients.meta.json").read_text())


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "patients.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return [draw(generator(SEED, block), BLOCK, END, TABLES) for block in range(BLOCKS)]


# The records ---------------------------------------------------------------------------------------------------------


def test_nothing_is_recorded_of_whoever_is_not_observed(records: list[dict[str, Any]]) -> None:
    for record in records:
        days = record["diagnosis_dates"] + record["prescription_dates"]
        start, end = record["observation_start"], record["observation_end"]
        assert "20210101" <= start <= end <= "20251231"
        assert all(start <= day <= end for day in days)
        if "death_date" in record:
            assert record["death_date"] == end
    assert 20 < sum("death_date" in record for record in records) < 90
    late = sum(record["observation_start"] > "20210101" for record in records)
    assert 0.4 < late / len(records) < 0.7


def test_a_history_has_no_bounds(records: list[dict[str, Any]], meta: dict[str, Any]) -> None:
    counts = np.array([(len(record["diagnoses"]), len(record["drugs"])) for record in records])
    assert (counts == 0).any(axis=0).all()
    assert (counts.max(axis=0) > (60, 60)).all()
    assert not ((counts[:, 0] == 30).mean() > 0.02 or (counts[:, 1] == 40).mean() > 0.02)
    assert "bounds" not in meta
    assert meta["options"]["realistic"] is True
    assert meta["realistic"]["deaths"] == sum("death_date" in record for record in records)


def test_shards_hold_the_same_patients(folder: Path, tmp_path: Path) -> None:
    run(
        "generate",
        "-n",
        2500,
        "-s",
        SEED,
        "--realistic",
        "-o",
        tmp_path / "p",
        "--shards",
        2,
        "--shard-format",
        "jsonl",
    )
    parts = [path.read_bytes() for path in sorted((tmp_path / "p").glob("part-*"))]
    assert b"".join(parts) == (folder / "patients.jsonl").read_bytes()


def test_a_realistic_file_converts_and_is_reported(folder: Path, tmp_path: Path) -> None:
    run("convert", "--input", folder / "patients.jsonl", "--output", tmp_path / "d.pt", "--min-observations", 3)
    assert (tmp_path / "d_train.pt").exists()
    run("report", "--input", folder / "patients.jsonl", "--output-dir", tmp_path / "report")
    notes = json.loads((tmp_path / "report" / "report.json").read_text())["notes"]
    assert any("observed for 2." in note for note in notes)


# Rates ---------------------------------------------------------------------------------------------------------------


def test_members_leave_and_die_at_the_published_rates(drawn: list[Drawn]) -> None:
    years = sum(one.observation.years.sum() for one in drawn)
    last = day_number(END)
    leaves = sum(((one.observation.end < last) & (one.observation.death == NEVER)).sum() for one in drawn)
    rate = -np.log1p(-FIGURES.rates["leaving_a_year"])
    assert leaves / years == pytest.approx(rate, abs=3 * np.sqrt(rate / years) + 0.003)
    deaths = sum((one.observation.death < NEVER).sum() for one in drawn)
    expected = 0.0
    for one in drawn:
        ages = ((one.observation.start + one.observation.end) / 2 - one.people.birth_days) / YEAR
        expected += (FIGURES.death[ages.astype(int).clip(0, 104), one.people.sexes] * one.observation.years).sum()
    assert deaths == pytest.approx(expected, abs=3.5 * np.sqrt(expected))


def test_the_sick_die_more_often(drawn: list[Drawn]) -> None:
    failing = CODES.index("I50.9")
    old = [one.people.ages >= 65 for one in drawn]
    sick = [one.life.onset[:, failing] == one.life.starts[0] for one in drawn]
    died = [one.observation.death < NEVER for one in drawn]
    with_it = np.concatenate([d[o & s] for d, o, s in zip(died, old, sick, strict=True)]).mean()
    without = np.concatenate([d[o & ~s] for d, o, s in zip(died, old, sick, strict=True)]).mean()
    assert with_it > 2 * without


def test_the_old_are_seen_more_often_than_the_young(drawn: list[Drawn]) -> None:
    visits, years = np.zeros(FIGURES.visits.shape), np.zeros(FIGURES.visits.shape)
    for one in drawn:
        group = FIGURES.visit_group[(one.people.ages - 2).clip(0)]
        visit = np.unique(one.diagnoses.patients << 24 | one.diagnoses.days) >> 24
        np.add.at(visits, (group[visit], one.people.sexes[visit]), 1)
        np.add.at(years, (group, one.people.sexes), one.observation.years)
    assert visits / years == pytest.approx(FIGURES.visits, rel=0.2)


def test_a_prolonged_stay_is_a_long_one(drawn: list[Drawn]) -> None:
    for one in drawn:
        long = one.stays.patients[one.stays.lengths > FIGURES.rates["long_stay_days"]]
        assert set(np.flatnonzero(one.prolonged)) == set(long)
    years = sum(one.observation.years.sum() for one in drawn)
    stays = np.concatenate([one.stays.lengths for one in drawn])
    assert len(stays) / years == pytest.approx(FIGURES.rates["stays_per_person_year"], rel=0.1)
    assert stays.mean() == pytest.approx(FIGURES.rates["days_of_a_stay_mean"], rel=0.1)


def test_therapies_stop_and_begin_again() -> None:
    patients = draw(generator(SEED, 0), 3 * BLOCK, END, TABLES, leaving=False)
    long_term = patients.drugs[TABLES.drugs.long_term[patients.drugs.codes]]
    therapy = long_term.patients * len(TABLES.drugs.codes) + long_term.codes
    order = np.lexsort((long_term.days, therapy))
    therapy, days = therapy[order], long_term.days[order]
    gaps = np.diff(days)[therapy[1:] == therapy[:-1]]
    assert 0.02 < (gaps > 270).mean() < 0.2, "a pause"
    last = np.append(therapy[1:] != therapy[:-1], True)
    alive = patients.observation.death[therapy[last] // len(TABLES.drugs.codes)] == NEVER
    assert 0.15 < (days[last][alive] < day_number(END) - 180).mean() < 0.5, "a stop"


# Lives and their truth -----------------------------------------------------------------------------------------------


def test_lives_are_drawn_again_from_the_seed(drawn: list[Drawn]) -> None:
    people, life, observation = lives(generator(SEED, 3), BLOCK, END, TABLES)
    assert (people.birth_days == drawn[3].people.birth_days).all()
    assert (life.onset == drawn[3].life.onset).all()
    assert (observation.end == drawn[3].observation.end).all()
    block = generate_block(SEED, 3, 0.0, END, realistic=True)
    assert (block.patients.periods["observation_end"] == observation.end).all()
    died = block.patients.periods["death_date"] != NO_DAY
    assert (died == (observation.death < NEVER)).all()


def test_what_begins_is_recorded_on_that_day(drawn: list[Drawn]) -> None:
    one = drawn[0]
    new, code = np.nonzero((one.life.onset > one.life.starts[0]) & (one.life.onset < NEVER))
    day = one.life.onset[new, code]
    seen = (day >= one.observation.start[new]) & (day <= one.observation.end[new])
    events = set(
        zip(one.diagnoses.patients.tolist(), one.diagnoses.codes.tolist(), one.diagnoses.days.tolist(), strict=True)
    )
    began = set(zip(new[seen].tolist(), code[seen].tolist(), day[seen].tolist(), strict=True))
    assert len(began) > 50 and began <= events


@pytest.mark.parametrize("codes", [("I10",), ("F32.A",), ("E11.9", "E11.65")])
def test_onsets_follow_their_hazard(codes: tuple[str, ...], drawn: list[Drawn], meta: dict[str, Any]) -> None:
    n, day, horizon = BLOCKS * BLOCK, day_number(date(2022, 3, 1)), 730
    found = truth(meta, codes, np.arange(n), np.full(n, day), horizon)
    columns = [CODES.index(code) for code in codes]
    first = np.concatenate([one.life.onset[:, columns].min(axis=1) for one in drawn])
    happens = (first > day) & (first <= day + horizon)
    assert not happens[first <= day].any() and not found.at_risk[first <= day].any()
    risk, happens = found.risk[found.at_risk], happens[found.at_risk]
    assert happens.sum() == pytest.approx(risk.sum(), abs=3 * np.sqrt(risk.sum()) + 0.08 * risk.sum())
    best = attainable(risk)
    half = np.median(risk)
    assert happens[risk > half].mean() > 2 * happens[risk <= half].mean()
    assert 0.6 < best["auroc"] < 1
    assert best["brier"] == pytest.approx(((happens - risk) ** 2).mean(), rel=0.2)


def test_deaths_and_long_stays_have_a_truth(drawn: list[Drawn], meta: dict[str, Any]) -> None:
    n, day = BLOCKS * BLOCK, day_number(date(2023, 1, 1))
    deaths, stays = (truth(meta, outcome, np.arange(n), np.full(n, day), 365) for outcome in (DEATH, LONG_STAY))
    assert 0.8 < attainable(deaths.risk[deaths.at_risk])["auroc"] < 0.95
    assert 0.012 < stays.risk[stays.at_risk].mean() < 0.03
    dead = np.concatenate([one.observation.death <= day for one in drawn])
    assert not deaths.at_risk[dead].any() and (deaths.risk[dead] == 0).all()


def test_the_truth_of_the_label_of_patients_with_bounds(meta: dict[str, Any]) -> None:
    blocks, given = 4, {key: value for key, value in meta.items() if key != "realistic"}
    found = of_prolonged_stays(given, np.arange(blocks * BLOCK))
    label = np.concatenate([generate_block(SEED, block, 0.01, END).patients.plos for block in range(blocks)])
    assert label.sum() == pytest.approx(found.sum(), abs=2 * np.sqrt(found.sum()))
    low, high = (label[(found > np.median(found)) == above].mean() for above in (False, True))
    assert high > 1.5 * low and 0.6 < attainable(found)["auroc"] < 0.8


def test_an_unknown_truth_is_refused(meta: dict[str, Any]) -> None:
    one = np.array([0])
    with pytest.raises(InputError, match="Z23: no known hazard"):
        truth(meta, "Z23", one, one, 365)
    with pytest.raises(InputError, match="not known, expected patients of generate --realistic"):
        truth({"seed": 1}, "I10", one, one, 365)
    with pytest.raises(InputError, match="other tables"):
        truth(meta | {"tables": "x"}, "I10", one, one, 365)


def test_the_tables_hazard_ratios_take_the_place_of_implied_ones() -> None:
    ratios = log_hazard_ratios(TABLES, FIGURES, load_realistic(TABLES, FIGURES)[0])
    assert ratios[CODES.index("R73.03"), CODES.index("E11.9")] == pytest.approx(np.log(5.55))
    assert ratios[CODES.index("E03.9"), CODES.index("E55.9")] > 0.1, "an odds ratio alone"
    assert (ratios[:, [CODES.index("J06.9"), CODES.index("Z23")]] == 0).all(), "nothing begins once and stays"


def test_an_endpoint_may_be_codes_that_begin_alike(meta: dict[str, Any]) -> None:
    n, day = 1000, np.full(1000, day_number(date(2022, 3, 1)))
    by_prefix, by_name = (truth(meta, codes, np.arange(n), day, 365) for codes in ("E11*", ["E11.9", "E11.65"]))
    assert (by_prefix.risk == by_name.risk).all() and by_prefix.at_risk.any()
    lasting = [code for code, kind in zip(CODES, TABLES.diagnoses.kinds, strict=True) if kind in LASTING]
    assert len(lasting) > 30
    for code in lasting:
        assert CODES.index(code) in conditions_of(f"{code[:3]}*"), "each category holds conditions that last alone"
    with pytest.raises(InputError, match=r"J\*: no known hazard"):
        truth(meta, "J*", np.arange(n), day, 365)  # asthma, and colds


def test_attainable_concordance_is_what_draws_show() -> None:
    rng = np.random.default_rng(3)
    hazard = np.repeat([0.05, 0.2, 0.8], 300)
    known = Truth(np.ones(900, dtype=bool), hazard, np.full(900, 0.3), 730)
    outcome, death = rng.exponential(1 / hazard), rng.exponential(1 / 0.3, 900)
    time = np.where(outcome <= death, outcome, np.inf)
    first = (time[:, None] < time) & (time[:, None] <= 730 / YEAR)
    higher, same = hazard[:, None] > hazard, hazard[:, None] == hazard
    found = known.attainable()
    assert found["concordance"] == pytest.approx(
        (first & higher).sum() / first.sum() + (first & same).sum() / 2 / first.sum(), abs=0.03
    )
    assert found["auroc"] > found["concordance"], "over two years those who have it late count as well"


def test_the_truth_of_the_label_of_prolonged_stays(drawn: list[Drawn], meta: dict[str, Any]) -> None:
    probability = of_prolonged_stays(meta, np.arange(BLOCKS * BLOCK))
    prolonged = np.concatenate([one.prolonged for one in drawn])
    assert prolonged.sum() == pytest.approx(probability.sum(), abs=3 * np.sqrt(probability.sum()))
    assert prolonged[probability > 0.05].mean() > 3 * prolonged[probability < 0.02].mean()


def test_conditions_begin_at_the_published_incidence() -> None:
    fitted = load_realistic(TABLES, FIGURES)[0]
    code, people = CODES.index("E11.9"), TABLES.demographics.people
    share = prevalence_by_age(TABLES, fitted)[:, :, code]
    new = begins_within(TABLES, FIGURES, fitted)[:, [code]] * share
    cases, lived = (np.add.reduceat((x * people).sum(axis=1), BAND_STARTS) for x in (new, 5 * (1 - share + new / 2)))
    assert (cases / lived)[1:] == pytest.approx(FIGURES.incidence[code, 1:])
    assert (begins_within(TABLES, FIGURES, fitted)[:, CODES.index("I10")] == 0.25).all(), "no figure, so the estimate"


def test_death_is_likely_soon_after_some_onsets(drawn: list[Drawn], meta: dict[str, Any]) -> None:
    n = 20_000
    early = Early(np.arange(n), np.full(n, 10), np.full(n, 10), np.full(n, 39), np.full(n, 1.5))
    begin = np.where(np.arange(n) % 2, 0, 25)
    day = early_deaths(np.random.default_rng(1), early, begin)
    for since, days in ((0, 30), (25, 15)):
        died = day[begin == since]
        assert (died < NEVER).mean() == pytest.approx(-np.expm1(-1.5 * days / YEAR), abs=0.01)
        assert died.min() >= max(since, 10) and died[died < NEVER].max() <= 39
    one, failing = drawn[0], CODES.index("I50.9")
    new = np.flatnonzero((one.life.onset[:, failing] > one.life.starts[0]) & (one.life.onset[:, failing] < NEVER))
    onset = one.life.onset[new, failing]
    soon, later = (truth(meta, DEATH, new, onset + days, 30) for days in (0, 400))
    assert soon.hazard[soon.at_risk].mean() > 2 * later.hazard[later.at_risk].mean()


def test_corrupted_dates_move_no_risk(tmp_path: Path) -> None:
    """What benchmarks/corrupted_dates.py does with a million patients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import corrupted_dates as benchmark
    chunks = [generate_block(SEED, block, 0.0, END, realistic=True).patients for block in range(8)]
    paths, rng = (tmp_path / "clean.parquet", tmp_path / "corrupted.parquet"), np.random.default_rng(7)
    write_patients(paths[0], chunks, Fields(periods=True))
    write_patients(paths[1], (benchmark.corrupted(chunk, rng) for chunk in chunks), Fields(periods=True))
    sources = [PatientInput((path,)) for path in paths]
    clean, corrupted = (benchmark.risks(source.chunks(), ["I10", "F41.9", "death"]) for source in sources)
    events = sum(len(chunk.events.codes) for chunk in chunks)
    assert sources[1].summary.implausible_events.total() == pytest.approx(events / 100, rel=0.1)
    for name, risk in clean.items():
        assert risk.value > 0.005
        assert abs(corrupted[name].value - risk.value) < 2 * risk.error, name


def test_first_events_follow_piecewise_hazards() -> None:
    n = 20_000
    starts = np.array([0, 100, 200])
    hazard = np.stack([np.full(n, 0.5), np.full(n, 2.0)])
    begin = np.full(n, 50)
    day = first_events(np.random.default_rng(1), hazard, starts, begin)
    first, second = (day < 100).mean(), ((day >= 100) & (day < 200)).mean()
    assert first == pytest.approx(-np.expm1(-0.5 * 50 / YEAR), abs=0.01)
    assert second == pytest.approx(np.exp(-0.5 * 50 / YEAR) * -np.expm1(-2 * 100 / YEAR), abs=0.012)
    assert (day[day < NEVER] >= 50).all() and (day[day < NEVER] < 200).all()
