"""The synthetic population: what every history keeps to, how it follows the tables, novel codes, files, the script."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import diagnoses_of, drugs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert import codes
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.patient import EPOCH, EventColumns, PatientColumns
from exmed_bert.reference import tables
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import generate as step
from exmed_bert.synthetic import population_file
from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.novel import pseudo_codes, replace_some
from exmed_bert.synthetic.people import Window, draw_people
from exmed_bert.synthetic.population import BLOCK, generate, generate_block, generate_blocks
from exmed_bert.synthetic.summary import Summary

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "generate_synthetic_patients.py"
END = date(2025, 12, 31)

TABLES = tables.load()
DIAGNOSES, DRUGS = TABLES.diagnoses, TABLES.drugs
LIMITS = {
    code: (limits.sexes[i], limits.min_age[i], limits.max_age[i], limits.valid_from[i])
    for table, limits in ((DIAGNOSES.codes, DIAGNOSES.limits), (DRUGS.codes, DRUGS.limits))
    for i, code in enumerate(table)
}


def owners(events: EventColumns) -> np.ndarray:
    """Return the patient's index of each event."""
    return np.repeat(np.arange(len(events.offsets) - 1), events.counts())


def occurrences(events: EventColumns, known: tuple[str, ...]) -> np.ndarray:
    """Return how often each patient has each known code, (N, C)."""
    column = np.array([known.index(code) for code in events.table])
    counts = np.zeros((len(events.offsets) - 1, len(known)), dtype=int)
    np.add.at(counts, (owners(events), column[events.codes]), 1)
    return counts


@dataclass
class Population:
    """A population without novel codes, as counts of each code per patient."""

    chunks: list[PatientColumns]
    diagnoses: np.ndarray
    drugs: np.ndarray
    ages: np.ndarray
    female: np.ndarray
    plos: np.ndarray

    @property
    def cells(self) -> list[np.ndarray]:
        """The patients of each age band and sex, bands first."""
        band = np.searchsorted(tables.BAND_STARTS, self.ages, side="right") - 1
        return [(band == b) & (self.female == sex) for b in range(4) for sex in (False, True)]


@pytest.fixture(scope="module")
def population() -> Population:
    chunks = list(generate(GenerateSettings(num_patients=10 * BLOCK, novel_prob=0, seed=5, end_date=END)))
    return Population(
        chunks,
        np.concatenate([occurrences(diagnoses_of(chunk), DIAGNOSES.codes) for chunk in chunks]),
        np.concatenate([occurrences(drugs_of(chunk), DRUGS.codes) for chunk in chunks]),
        END.year - np.concatenate([chunk.birth_years for chunk in chunks]),
        np.concatenate([np.array(chunk.static["sex"]) == "FEMALE" for chunk in chunks]),
        np.concatenate([chunk.plos for chunk in chunks]) == 1,
    )


# What every history keeps to -----------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**80),
    block=st.integers(0, 2**31),
    novel_prob=st.sampled_from([0.0, 0.01, 1.0]),
    end=st.dates(date(1960, 1, 1), date(2100, 12, 31)) | st.sampled_from([date(2024, 2, 29), date(2022, 3, 1)]),
)
def test_every_history_keeps_to_the_rules(seed: int, block: int, novel_prob: float, end: date) -> None:
    patients = generate_block(seed, block, novel_prob, end).patients
    assert patients.patient_ids == list(range(block * BLOCK, (block + 1) * BLOCK))
    five_years_before = date(end.year - 5, end.month, min(end.day, 28 if end.month == 2 else 31))
    window = ((five_years_before - EPOCH).days + 1, (end - EPOCH).days)
    for events, known, bounds in (
        (diagnoses_of(patients), DIAGNOSES.codes, (3, 30)),
        (drugs_of(patients), DRUGS.codes, (2, 40)),
    ):
        assert bounds[0] <= events.counts().min() and events.counts().max() <= bounds[1]
        assert window[0] <= events.days.min() and events.days.max() <= window[1]
        order = (owners(events) << 40) + ((events.days.astype(int) + 2**20) << 16)
        assert (np.diff(order) >= 0).all(), "in order of patient and day"
        assert len(np.unique(order + events.codes)) == len(order), "a code once a visit"

        system = codes.ICD10CM if known is DIAGNOSES.codes else codes.ATC
        novel = pseudo_codes(known, system, seed)
        source = {code: known[index] for code, index in zip(novel.table, novel.sources, strict=True)}
        sexes, min_age, max_age, valid_from = map(
            np.array, zip(*[LIMITS[source[code]] for code in events.table], strict=True)
        )
        female = np.array(patients.static["sex"])[owners(events)] == "FEMALE"
        assert sexes[events.codes, female.astype(int)].all()
        assert (events.days >= valid_from[events.codes]).all()
        # Only the year of birth is on record: the age on the day is one of two.
        oldest = events.days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
        oldest = oldest - patients.birth_years[owners(events)]
        assert (oldest >= min_age[events.codes]).all() and (oldest - 1 <= max_age[events.codes]).all()


def test_codes_are_not_used_before_they_exist() -> None:
    def used(end: date) -> dict[str, date]:
        patients = generate_block(3, 0, 0.0, end).patients
        first: dict[str, date] = {}
        for events in (diagnoses_of(patients), drugs_of(patients)):
            for index, code in enumerate(events.table):
                first[code] = EPOCH + timedelta(days=int(events.days[events.codes == index].min()))
        return first

    assert not {"U07.1", "M54.50", "F32.A", "R05.9", "J05AE30"} & used(date(2019, 12, 31)).keys()
    first = used(date(2023, 6, 30))
    assert date(2020, 4, 1) <= first["U07.1"] < date(2020, 6, 1)
    assert all(date(2021, 10, 1) <= first[code] < date(2021, 12, 1) for code in ("M54.50", "F32.A", "R05.9"))
    assert date(2021, 12, 22) <= first["J05AE30"]


# Same seed, same patients --------------------------------------------------------------------------------------------


def records(n: int, seed: int = 42) -> list[dict]:
    chunks = generate(GenerateSettings(num_patients=n, seed=seed))
    return [record for chunk in chunks for record in chunk.records()]


def test_more_patients_keep_the_first_ones() -> None:
    few, many = records(1500), records(2500)
    assert len(few) == 1500 and len(many) == 2500
    assert many[:1500] == few
    assert records(10, seed=43) != few[:10]


def test_a_block_depends_on_seed_and_number_alone() -> None:
    alone = list(generate_block(7, 2, 0.05, END).patients.records())
    generate_block(8, 0, 0.5, END)
    assert list(generate_block(7, 2, 0.05, END).patients.records()) == alone
    assert [{**record, "patient_id": 0} for record in generate_block(7, 3, 0.05, END).patients.records()] != alone


def test_nobody_is_too_young_for_a_history() -> None:
    window = Window.until(END)
    people = draw_people(np.random.default_rng(0), 20_000, TABLES.demographics, window)
    age = window.end - people.birth_days
    assert 60 == age.min() < age[age > 60].min() < 70
    assert ((age // 365.25 == people.ages) | (age % 365.25 > 364)).all()


# Following the tables ------------------------------------------------------------------------------------------------


def test_demographics_are_the_census(population: Population) -> None:
    n = len(population.ages)
    census = TABLES.demographics.people / TABLES.demographics.people.sum()
    assert population.female.mean() == pytest.approx(census[:, 1].sum(), abs=4 * 0.5 / n**0.5)
    assert population.ages.mean() == pytest.approx(census.sum(axis=1) @ np.arange(len(census)), abs=4 * 23 / n**0.5)
    assert (population.female & (population.ages >= 85)).sum() > 1.3 * (
        ~population.female & (population.ages >= 85)
    ).sum()

    states = Counter(state for chunk in population.chunks for state in chunk.static["state"])
    assert states.keys() == set(TABLES.demographics.states)
    assert states["CA"] / n == pytest.approx(39_431_263 / 340_110_988, abs=4 * 0.32 / n**0.5)
    old = Counter(
        np.concatenate([chunk.static["state"] for chunk in population.chunks])[population.ages >= 65].tolist()
    )
    assert old["FL"] / states["FL"] > 1.3 * old["UT"] / states["UT"]


def test_prevalence_is_the_tables(population: Population) -> None:
    has = population.diagnoses > 0
    checked = 0
    for cell, who in enumerate(population.cells):
        expected = DIAGNOSES.prevalence[:, cell // 2, cell % 2]
        error = np.sqrt(expected * (1 - expected) / who.sum())
        common = expected * who.sum() >= 30
        # Filling short histories adds a little to what is common: 1 % of the patients on top of chance.
        assert (np.abs(has[who].mean(axis=0) - expected)[common] < 4.5 * error[common] + 0.01).all()
        assert not has[who][:, expected == 0].any()
        checked += common.sum()
    assert checked > 250


def test_comorbid_conditions_meet(population: Population) -> None:
    """The Mantel-Haenszel odds ratio over age bands and sexes is near the table's."""

    def odds_ratio(first: str, second: str) -> float:
        above = below = 0.0
        has = population.diagnoses[:, [DIAGNOSES.codes.index(first), DIAGNOSES.codes.index(second)]] > 0
        for who in population.cells:
            both, one, other, none = (
                (has[who] == pattern).all(axis=1).sum() for pattern in ([1, 1], [1, 0], [0, 1], [0, 0])
            )
            above, below = above + both * none / who.sum(), below + one * other / who.sum()
        return above / below

    for first, second in (
        ("I10", "E78.5"),
        ("E11.9", "I10"),
        ("F41.9", "F32.A"),
        ("J45.909", "J30.9"),
        ("I25.10", "I50.9"),
    ):
        ratio = DIAGNOSES.odds_ratios[DIAGNOSES.codes.index(first), DIAGNOSES.codes.index(second)]
        assert ratio / 1.5 < odds_ratio(first, second) < ratio * 1.5, (first, second)
    assert 0.75 < odds_ratio("J30.9", "I10") < 1.33, "not named in the table"


def test_drugs_follow_their_diagnoses(population: Population) -> None:
    has, given_drug = population.diagnoses > 0, population.drugs > 0
    for drug, diagnosis, tolerance in (
        ("H03AA01", "E03.9", 0.05),  # drugs of one diagnosis: nothing else adds users
        ("J01XE01", "N39.0", 0.05),
        ("N06BA01", "F90.9", 0.06),
        ("C08CA01", "I10", 0.04),
        ("N02CC01", "G43.909", 0.08),
    ):
        i, j = DRUGS.codes.index(drug), DIAGNOSES.codes.index(diagnosis)
        link = (DRUGS.link_drug == i) & (DRUGS.link_diagnosis == j)
        share = given_drug[has[:, j], i].mean()
        assert share == pytest.approx(DRUGS.link_probability[link][0], abs=tolerance), drug
        assert share > 5 * given_drug[~has[:, j], i].mean(), drug


def test_a_drug_begins_on_the_day_of_a_diagnosis(population: Population) -> None:
    begun = on_visit = 0
    for chunk in population.chunks[:3]:
        visits = set(zip(owners(diagnoses_of(chunk)), diagnoses_of(chunk).days, strict=True))
        first: dict[tuple[int, int], int] = {}
        for patient, code, day in zip(
            owners(drugs_of(chunk)), drugs_of(chunk).codes, drugs_of(chunk).days, strict=True
        ):
            first.setdefault((patient, code), day)
        begun += len(first)
        on_visit += sum((patient, day) in visits for (patient, _), day in first.items())
    # Of a class the next drug may take over where no visit is left.
    assert on_visit > 0.96 * begun


def test_long_term_drugs_are_refilled_by_days_of_supply(population: Population) -> None:
    gaps = []
    for chunk in population.chunks:
        code = drugs_of(chunk).table.index("C10AA05")
        of_drug = drugs_of(chunk).codes == code
        patient, day = owners(drugs_of(chunk))[of_drug], drugs_of(chunk).days[of_drug]
        alone = (drugs_of(chunk).counts() < 40)[patient[1:]] & (patient[1:] == patient[:-1])  # thinning widens gaps
        gaps.append((day[1:] - day[:-1])[alone])
    # 90 or 30 days of supply, 72 on average; 3.92 fills by those who take it for 0.9 of the year are 84 days apart.
    gaps = np.concatenate(gaps)
    short, long = (gaps > 20) & (gaps < 60), (gaps > 70) & (gaps < 150)
    assert (short | long).mean() > 0.9
    assert np.median(gaps[short]) == pytest.approx(30 * 84 / 72, rel=0.2)
    assert np.median(gaps[long]) == pytest.approx(90 * 84 / 72, rel=0.2)
    # 30 % of the prescriptions are for 30 days, fewer among those who stay below the bound of 40.
    assert 0.05 < short.mean() < 0.35


def test_conditions_have_their_course(population: Population) -> None:
    counts = population.diagnoses
    mean = {code: counts[counts[:, i] > 0, i].mean() for i, code in enumerate(DIAGNOSES.codes)}
    assert 4 < mean["J45.909"] < 14 and 4 < mean["F90.9"] < 14, "chronic: some visits a year"
    assert 1 < mean["J06.9"] < 2 and 1 < mean["U07.1"] < 2, "episodic: once or a few times"
    assert 2.5 < mean["Z00.00"] < 5, "yearly"

    delivery, prenatal = DIAGNOSES.codes.index("O80"), DIAGNOSES.codes.index("Z34.90")
    delivered = counts[:, delivery] > 0
    assert delivered.sum() > 100 and (counts[delivered, prenatal] > 0).mean() > 0.5


def test_related_episodes_share_a_visit(population: Population) -> None:
    together = either = 0
    for chunk in population.chunks:
        days = {}
        for code in ("J06.9", "J02.9"):
            of_code = diagnoses_of(chunk).codes == diagnoses_of(chunk).table.index(code)
            days[code] = set(zip(owners(diagnoses_of(chunk))[of_code], diagnoses_of(chunk).days[of_code], strict=True))
        colds = {patient for patient, _ in days["J06.9"]}
        either += sum(patient in colds for patient, _ in days["J02.9"])
        together += len(days["J06.9"] & days["J02.9"])
    assert together / either > 0.4


def test_prolonged_stay_depends_on_age_and_conditions(population: Population) -> None:
    assert 0.07 < population.plos.mean() < 0.13
    assert population.plos[population.ages >= 65].mean() > 2 * population.plos[population.ages < 45].mean()
    failing = population.diagnoses[:, DIAGNOSES.codes.index("I50.9")] > 0
    old = population.ages >= 65
    assert population.plos[old & failing].mean() > 1.5 * population.plos[old & ~failing].mean()


def test_histories_can_be_learned_from(population: Population) -> None:
    """The baseline that a trained model has to beat, the patient's most frequent other code, is often correct."""
    right = events = 0.0
    for counts in (population.diagnoses, population.drugs):
        for patient in counts[: 3 * BLOCK]:
            ordered = sorted(patient[patient > 0].tolist(), reverse=True)
            events += sum(ordered)
            for count in ordered:
                others = [*ordered, 0]
                others.remove(count)
                if count - 1 > others[0]:
                    right += count
                elif count - 1 == others[0] > 0:
                    right += count / (1 + others.count(others[0]))
    assert 0.35 < right / events < 0.55

    summary = Summary()
    for block in generate_blocks(GenerateSettings(num_patients=3 * BLOCK, novel_prob=0, seed=5)):
        summary.add(block)
    assert summary.guessed == pytest.approx(right)


# Novel codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system, known", [(codes.ICD10CM, DIAGNOSES.codes), (codes.ATC, DRUGS.codes)])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**70))
def test_pseudo_codes(system: str, known: tuple[str, ...], seed: int) -> None:
    novel = pseudo_codes(known, system, seed)
    assert novel.table == pseudo_codes(known, system, seed).table
    assert novel.table[: len(known)] == known
    assert len(set(novel.table)) == len(novel.table), "none is known, none belongs to two codes"
    for code, source in zip(novel.table[len(known) :], novel.sources[len(known) :], strict=True):
        assert codes.normalize(code, system) == code
        if system == codes.ICD10CM:
            assert codes.parent(code, system) == known[source]
        else:
            assert code[:5] == known[source][:5] and code[5:] >= "90"
    assert set(novel.sources[len(known) :]) == set(range(len(known))), "every code of the tables has some"


def test_a_code_without_room_has_no_pseudo_code() -> None:
    novel = pseudo_codes(("S72.001A", "I10"), codes.ICD10CM, 1)
    assert set(novel.sources[2:]) == {1}
    events = Events(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))
    assert replace_some(np.random.default_rng(0), events, novel, 1.0).codes.tolist() == [0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), probability=st.floats(0.01, 0.99))
def test_replacement(seed: int, probability: float) -> None:
    rng = np.random.default_rng(seed)
    novel = pseudo_codes(DRUGS.codes, codes.ATC, seed)
    visits = Events(np.repeat(np.arange(100), 62), np.tile(np.arange(62), 100), np.zeros(6200, int))
    replaced = replace_some(rng, visits, novel, probability)
    assert (novel.sources[replaced.codes] == visits.codes).all()
    share = (replaced.codes >= 62).mean()
    assert abs(share - probability) <= 5 * (probability * (1 - probability) / 6200) ** 0.5
    assert len(set(zip(replaced.patients, replaced.codes, strict=True))) == 6200, "no two codes of a visit became one"


def test_some_pseudo_codes_are_taken_far_more_often() -> None:
    novel = pseudo_codes(("I10",), codes.ICD10CM, 1)
    events = Events(np.arange(20_000), np.zeros(20_000, int), np.zeros(20_000, int))
    counts = np.bincount(replace_some(np.random.default_rng(0), events, novel, 1.0).codes)[novel.choices[0]]
    assert len(counts) == 10 and counts.sum() == 20_000
    assert (counts[1:6] / counts[:5]).tolist() == pytest.approx([0.6] * 5, abs=0.08)


def test_novel_prob_is_the_share_of_the_events() -> None:
    for probability in (0.0, 0.02, 1.0):
        patients = generate_block(11, 0, probability, END).patients
        novel = sum(
            int(np.isin(events.codes, [i for i, code in enumerate(events.table) if code not in known]).sum())
            for events, known in ((diagnoses_of(patients), DIAGNOSES.codes), (drugs_of(patients), DRUGS.codes))
        )
        total = len(diagnoses_of(patients).codes) + len(drugs_of(patients).codes)
        assert novel / total == pytest.approx(probability, abs=5 * (probability * (1 - probability) / total) ** 0.5)


def test_novel_codes_change_nothing_else() -> None:
    plain, replaced = (generate_block(11, 0, probability, END).patients for probability in (0.0, 1.0))
    assert plain.static["state"] == replaced.static["state"] and (plain.plos == replaced.plos).all()
    assert (plain.events.days == replaced.events.days).all()


# Files ---------------------------------------------------------------------------------------------------------------


def generate_to(output: Path, **given: object) -> None:
    settings = GenerateSettings(output=output, **given)
    step.run(Resolved(settings, dict.fromkeys(GenerateSettings.model_fields, "default")))


@pytest.mark.parametrize("extension", [".json", ".jsonl", ".jsonl.gz", ".parquet"])
def test_same_seed_same_bytes(tmp_path: Path, extension: str) -> None:
    for folder in ("a", "b"):
        generate_to(tmp_path / folder / f"p{extension}", num_patients=1020, seed=3)
    generate_to(tmp_path / "c" / f"p{extension}", num_patients=20, seed=4)
    for name in (f"p{extension}", "p.meta.json"):
        first, again, other = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b", "c"))
        assert first == again != other


def test_meta_describes_the_file(tmp_path: Path) -> None:
    generate_to(tmp_path / "p.json", num_patients=1300, novel_prob=0.05, seed=9)
    patients = json.loads((tmp_path / "p.json").read_text())
    meta = json.loads((tmp_path / "p.meta.json").read_text())
    used = {
        "icd": Counter(code for patient in patients for code in patient["diagnoses"]),
        "atc": Counter(code for patient in patients for code in patient["drugs"]),
    }
    assert (meta["format"], meta["version"], meta["seed"]) == ("exmed-bert-synthetic-patients", 1, 9)
    options = {"num_patients": 1300, "novel_prob": 0.05, "novel_kind": "invented", "end_date": "2025-12-31"}
    assert meta["options"] == options
    assert meta["tables"] == TABLES.digest
    assert meta["counts"]["patients"] == len(patients) == 1300
    assert meta["counts"]["diagnoses"] == used["icd"].total() and meta["counts"]["codes"] == used
    known = {*DIAGNOSES.codes, *DRUGS.codes}
    assert meta["novel_codes"].keys() == (used["icd"].keys() | used["atc"].keys()) - known
    for code, entry in meta["novel_codes"].items():
        assert entry["count"] == used[entry["system"]][code]
        assert entry["source"] in known and entry["parent"] == codes.parent(code, entry["system"])
        assert codes.parent(entry["source"], "atc") == entry["parent"] or entry["source"] == entry["parent"]
    assert json.loads((tmp_path / "p.settings.json").read_text())["settings"]["novel_prob"] == 0.05


def test_a_run_that_dies_leaves_no_file_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "p.json"
    generate_to(output, num_patients=20, seed=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("generate_pieces", "write_json"):  # while patients are made, and after they are written
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(population_file, name, dies)
            generate_to(output, num_patients=20, seed=2)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "name, old, new, problem",
    [
        ("diagnoses.csv", "\nI10,", "\nhypertension,", "'hypertension', is no ICD-10-CM code"),
        ("diagnoses.csv", "\nI10,", "\nZ23,", "a code stands twice"),
        ("diagnoses.csv", "J02.9:2.5|R05.9:3.0", "J02.8:2.5|R05.9:3.0", "J02.8 is not in diagnoses.csv"),
        ("diagnoses.csv", ",0.8,0.4,0.5,0.65,", ",8,0.4,0.5,0.65,", "'8', expected a share from 0 to 1"),
        ("diagnoses.csv", ",episodic,", ",seldom,", "'seldom', expected one of chronic"),
        ("drugs.csv", "E03.9:0.885", "E03.9:1.885", "1.885, expected at most 1"),
        ("drugs.csv", "E03.9:0.885", "E03:0.885", "E03 is not in diagnoses.csv"),
        ("drugs.csv", "90:.7|30:.3", "90:.7|30:.4", "must sum to 1"),
        ("drugs.csv", ",3.92,", ",often,", "'often', is not readable"),
        ("plos.csv", "I50.9", "I50.99", "'I50.99' is not in diagnoses.csv"),
        ("us_demographics.json", '"WY": 58', '"XX": 58', "must name the same states"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, name: str, old: str, new: str, problem: str) -> None:
    folder = shutil.copytree(tables.FOLDER, tmp_path / "tables")
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=f"{name}.*{problem}"):
        tables.load(folder)


# The script ----------------------------------------------------------------------------------------------------------


def run_script(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_script_writes_and_reports(tmp_path: Path) -> None:
    done = run_script("-n", "100", "-p", "0.02", "-s", "7", "-o", "out/p.jsonl.gz", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"p.jsonl.gz", "p.meta.json", "p.settings.json"}
    for shown in ("patients", "age, mean", "novel codes", "prolonged length of stay", "out/p.meta.json"):
        assert shown in done.stdout


def test_other_patients_are_not_replaced_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, note = tmp_path / "p.json", f"Note: {tmp_path}/p.json held 20 other patients (seed 7), which are replaced"
    for seed, said in ((7, False), (7, False), (8, True)):
        step.run(Resolved(GenerateSettings(num_patients=20, seed=seed, output=path), {}))
        assert (note in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    "arguments, code, problem",
    [
        (["-p", "1.5"], 2, "--novel-prob: 1.5 is not allowed"),
        (["-n", "0"], 2, "--num-patients: 0 is not allowed"),
        (["-n", "10", "-o", "p.csv"], 1, "p.csv: unknown kind of file"),
        (["-n", "10", "-o", "file/p.json"], 1, "file"),
    ],
)
def test_script_refuses_in_one_line(tmp_path: Path, arguments: list[str], code: int, problem: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = run_script(*arguments, folder=tmp_path)
    assert done.returncode == code
    assert problem in done.stderr and done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file"}
