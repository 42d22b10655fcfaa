"""Which patients counts are hidden of, and that no page, file or table of results gives a hidden count away."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from conftest import record, write_records

from exmed_bert.config import Resolved
from exmed_bert.data.convert import convert, run
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.evaluation.flow import flow_of
from exmed_bert.evaluation.results import SplitCount
from exmed_bert.evaluation.small_cells import told_attrition, told_splits
from exmed_bert.reporting.small_cells import NONE, Count, MinCell, as_count
from exmed_bert.settings import ConvertSettings, GenerateSettings, ReadingSettings
from exmed_bert.synthetic import generate

CELLS = MinCell(11)


def test_a_total_leaves_every_value_of_a_hidden_part_possible() -> None:
    for counts in product((0, 1, 4, 10, 11, 30), repeat=3):
        worlds = [
            [n if not CELLS.hides(n) else other for n, other in zip(counts, others, strict=True)]
            for others in product((1, 5, 10), repeat=3)
        ]
        totals = {str(CELLS.total(world)) for world in worlds}
        assert len(totals) == 1 and CELLS.total(counts).low <= sum(counts) <= CELLS.total(counts).high


def test_parts_of_a_total_that_is_told_leave_a_hidden_one_open() -> None:
    for counts in product((0, 1, 4, 10, 11, 30), repeat=3):
        told = CELLS.parts(counts)
        assert all(part.low <= count <= part.high for part, count in zip(told, counts, strict=True))
        if CELLS.hides(*counts) and sum(map(bool, counts)) > 1 and sum(counts) > 20:
            assert sum(not part.is_exact for part in told) >= 2, (counts, told)


@pytest.mark.parametrize("censored", [False, True])
def test_few_of_a_cohort_who_are_in_no_split_stay_hidden(censored: bool) -> None:
    told = set()
    for few in (1, 5, 10):
        events = 105 - few if censored else 100
        splits = [SplitCount("training", 705 - few, events), SplitCount("test", 295, 60)]
        steps = [("patients read", 1000), ("patients left", 1000), ("  with the outcome", events + 60)]
        steps += [("  censored", few)] if censored else []
        attrition, shown = told_attrition(steps, CELLS), told_splits(splits, CELLS, steps)
        flow = flow_of(attrition, shown)
        assert flow is not None and flow.steps[-1].leaving is not None and flow.steps[-1].leaving.count == "<11"
        assert all(
            as_count(a.patients).low <= b.patients <= as_count(a.patients).high
            for a, b in zip(shown, splits, strict=True)
        )
        told.add(str((attrition, shown, flow)))
    assert len(told) == 1


def test_parts_do_not_give_away_a_total_that_is_a_range() -> None:
    for counts in product((0, 1, 11, 30), repeat=3):
        total = Count(max(sum(counts) - 4, 1), sum(counts) + 5)
        told = sum(CELLS.parts(counts, total), NONE)
        assert total.is_hidden or not told.is_exact


def generated(folder: Path, number: int = 30) -> Path:
    """Return a file of patients that our generator made."""
    path = folder / "p.json"
    generate.run(Resolved(GenerateSettings(num_patients=number, output=path), {}))
    return path


def cells_of(path: Path, min_cell: int | None = None) -> MinCell:
    """Return which counts are hidden of the patients of a file."""
    source = PatientInput([path], ReadingSettings(min_cell=min_cell))
    assert sum(map(len, source.chunks(7)))
    return source.cells


def test_counts_of_generated_patients_alone_are_all_shown(tmp_path: Path) -> None:
    path = generated(tmp_path)
    assert cells_of(path) == MinCell(0) and cells_of(path, 20) == MinCell(20)
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    assert cells_of(other) == MinCell(11) and cells_of(other, 0) == MinCell(0)
    records = json.loads(path.read_text())
    records[3]["diagnoses"], records[3]["diagnosis_dates"] = [], []
    path.write_text(json.dumps(records))
    assert cells_of(path) == MinCell(11), "the meta file is another's"


def test_a_dataset_knows_which_counts_are_hidden(tmp_path: Path) -> None:
    path = generated(tmp_path)
    assert all(one.info.min_cell is None for one in convert(settings(path)).datasets.values())
    assert b"min_cell" not in (tmp_path / "d_train.pt").read_bytes()
    own = write_records(tmp_path / "own.json", [record(i) for i in range(40)])
    for given, kept in ((None, 11), (5, 5), (0, 0)):
        convert(settings(own, given))
        info = PatientDataset.load(tmp_path / "d_train.pt").info
        assert info.min_cell == kept and info.cells() == MinCell(kept) and info.cells(7) == MinCell(7)
        old = replace(info, min_cell=None)
        assert old.cells() == MinCell(11) and replace(old, novel_codes=("E11.95",)).cells() == MinCell(0)


def settings(path: Path, min_cell: int | None = None) -> ConvertSettings:
    """Return settings of a conversion into the folder of the patients."""
    return ConvertSettings(input=path, output=path.parent / "d.pt", min_observations=2, min_cell=min_cell)


def test_a_conversion_prints_no_count_under_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_code = {"diagnoses": ["I10"], "diagnosis_dates": ["20200101"], "drugs": [], "prescription_dates": []}
    records = [record(i) for i in range(100)] + [record(i, **one_code) for i in range(100, 103)]
    records[0]["diagnoses"][0] = "JANE DOE"
    path = write_records(tmp_path / "p.json", records)
    run(Resolved(settings(path), {}))
    printed = " ".join(capsys.readouterr().out.split())
    assert "patients read 101 to 110 excluded: fewer than 2 codes <11 " in printed
    assert "distinct codes 5 " in printed and "(max)" not in printed and "DOE" not in printed
