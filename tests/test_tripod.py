"""The section that reporting guidelines ask for: what the run knows stands there, and the rest as questions."""

from pathlib import Path

import pytest
from test_evaluation import evaluated, few_at_a_time, planted

from exmed_bert.evaluation.formatting import format_estimate
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.results_page import write_report
from exmed_bert.evaluation.study import Study
from exmed_bert.evaluation.tripod import probast, tripod
from exmed_bert.reporting.small_cells import MinCell

ITEMS = 27
ATTRITION = [("patients read", 617), ("excluded: no event", 17), ("patients left", 600)]
STUDY = Study(
    source="Synthetic patients of patients.json.",
    index_dates="2019 to 2023",
    outcome="First occurrence of E11 within 365 days.",
    missing=[("sex", 12), ("state", 0)],
    missing_handling="Nothing is imputed.",
    generated=True,
)


@pytest.fixture(scope="module")
def results() -> Results:
    return evaluated(planted(), attrition=ATTRITION, notes=["A note."], study=STUDY).results


def test_every_item_is_known_or_asked(results: Results) -> None:
    items = tripod(results, STUDY)
    numbers = {
        int("".join(filter(str.isdigit, part.split("-")[0]))) for item in items for part in item.number.split(", ")
    }
    assert numbers == set(range(1, ITEMS + 1))
    assert [item.number for item in probast(results, STUDY)] == ["1", "2", "3", "4"]
    assert all(item.known or item.questions for item in (*items, *probast(results, STUDY)))
    assert all(question.endswith("?") for item in items for question in item.questions)


def test_what_the_run_knows_stands_there(results: Results) -> None:
    texts = {item.topic: item.text for item in tripod(results, STUDY)}
    first, test = results.models[0], results.splits[-1]
    assert texts["Eligibility"] == "Left out: no event (17)."
    assert texts["Flow of participants"] == "patients read: 617. excluded: no event: 17. patients left: 600."
    assert f"{test.events} of {test.patients} test patients" in texts["Sample size"]
    assert texts["Missing data"] == "Not known: sex: 12. Nothing is imputed."
    assert f"AUROC {format_estimate(first.metrics['auroc'])}" in texts["Performance"]
    assert "AUROC by sex" in texts["Performance by group"] and "A note." in texts["Limitations"]
    assert "synthetic" in texts["Limitations"] and "2019 to 2023" in texts["Data"]
    assert texts["Patients and public"] == "[To answer: How were patients involved?]"


def test_the_report_has_it_to_be_copied(results: Results, tmp_path: Path) -> None:
    write_report(tmp_path, results)
    page, text = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "results.md"))
    assert "Reporting (TRIPOD+AI, PROBAST+AI)" in page and "[To answer: " in page
    assert "| 6b | Eligibility | Left out: no event (17). |" in text


def test_hidden_counts_are_hidden_here_too() -> None:
    patients, cells = few_at_a_time(1500, 0.1), MinCell(11)
    attrition = [("patients read", 1507), ("excluded: no event", 7), ("patients left", 1500)]
    results = evaluated(patients, attrition=attrition, cells=cells, study=STUDY).results
    texts = {item.topic: item.text for item in tripod(results, STUDY)}
    assert texts["Eligibility"] == "Left out: no event (<11)." and "1507" not in texts["Flow of participants"]
    assert "1,507" not in texts["Flow of participants"]
