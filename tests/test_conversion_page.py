"""The page of a conversion: what it counts, and that it never tells how many a hidden count is."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exmed_bert.data.conversion_counts import ConversionCounts, attrition
from exmed_bert.data.conversion_page import conversion_page
from exmed_bert.data.conversion_plots import by_length
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.tokenizer import EventCounts, TokenizerSummary
from exmed_bert.reporting.content import Report, Table
from exmed_bert.reporting.html import html
from exmed_bert.reporting.markdown import markdown
from exmed_bert.reporting.small_cells import MinCell

ALL, FEW_HIDDEN = MinCell(0), MinCell(11)


@pytest.fixture(scope="module")
def datasets(small_datasets: Path) -> dict[str, PatientDataset]:
    """Both splits of 200 synthetic patients."""
    return {split: PatientDataset.load(small_datasets / f"small_{split}.pt") for split in ("train", "val")}


def counts_of(datasets: dict[str, PatientDataset], few: Callable[[int], int] = lambda n: n) -> ConversionCounts:
    """Return counts of a conversion; all of its small ones pass through ``few``."""
    left = sum(map(len, datasets.values()))
    return ConversionCounts(
        input="data/omop",
        reading=ReadingSummary(
            "OMOP",
            files={
                "PERSON.csv": Counter({"rows": 300}),
                "condition.csv": Counter({"rows": 9000, "of no patient": few(4)}),
            },
            excluded=Counter({"no plausible birth year": few(3), "no event": 40}),
            families=Counter({"LAB": 700, "HR": few(9)}),
            repeats=few(2),
            notes=["Dates are shifted."],
        ),
        events={
            ("icd10cm", "kept", 2018): 4000,
            ("icd10cm", "unknown", 2018): few(5),
            ("icd10cm", "kept", 1931): 1,
            ("ndc", "mapped", 2018): 2500,
            ("ndc", "left out", 2019): 900,
            ("house codes", "left out", 2019): few(2),
        },
        unmapped={("ndc", "00071015523"): 870, ("ndc", "00093101601"): 30, ("house codes", "JANE DOE"): few(2)},
        tokens=TokenizerSummary(
            patients=left + few(8),
            too_short=few(8),
            truncated=60,
            events=EventCounts(read=5020 + few(1), repeated=20, excluded=few(1)),
            not_in_vocabulary=Counter({("ndc", "00071015523"): 12}),
            unknown_codes=Counter({("icd10cm", "V58.61"): 14, ("icd10cm", "JOHN DOE"): few(6)}),
            unknown_static=Counter(sex=few(7), state=120),
            unknown_ages=few(10),
        ),
        min_observations=5,
        datasets=datasets,
    )


def table(page: Report, section: str, number: int = 0) -> Table:
    """Return a table of a section."""
    return next(one for one in page.sections if one.key == section).tables[number]


def test_a_page_says_what_became_of_events_and_patients(datasets: dict[str, PatientDataset]) -> None:
    page = conversion_page(counts_of(datasets), ALL)
    left = sum(map(len, datasets.values()))
    assert ("read as", "OMOP") in page.facts and ("events", "7,408") in page.facts
    assert ("calendar years", "1931 to 2019") in page.facts and page.notes == ["Dates are shifted."]
    assert [list(map(str, row)) for row in table(page, "systems").rows] == [
        ["ICD-10-CM", "4,001", "0", "5", "0", "4,006", "99.9 %"],
        ["NDC", "0", "2,500", "0", "900", "3,400", "73.5 %"],
        ["house codes", "0", "0", "0", "2", "2", "0.0 %"],
        ["all", "4,001", "2,500", "5", "902", "7,408", "87.8 %"],
    ]
    assert [row[0] for row in table(page, "unmapped").rows] == ["00071015523", "00093101601", "JANE DOE"]
    assert [row[0] for row in table(page, "unknown").rows] == ["V58.61", "JOHN DOE"]
    assert [(str(row[0]), str(row[1])) for row in table(page, "patients").rows] == [
        ("in the input", str(left + 51)),
        ("excluded: no event", "40"),
        ("excluded: no plausible birth year", "3"),
        ("excluded: fewer than 5 codes", "8"),
        ("left", str(left)),
        ("of these in the train split", str(len(datasets["train"]))),
        ("of these in the val split", str(len(datasets["val"]))),
    ]
    assert table(page, "rows").columns == ("File", "Rows", "Of no patient")
    assert [list(map(str, row)) for row in table(page, "datasets", 1).rows] == [
        ["events that were kept, mapped or unknown", "5,021"],
        ["repeated within a visit", "20"],
        ["of excluded patients", "1"],
        ["before the latest visits that fit", "0"],
        ["tokens", "5,000"],
    ]
    assert set(page.plots) == {"outcomes", "systems", "lengths"}
    assert page.sections[0].statements[0].verdict.text == "worth a look"


def test_a_page_holds_the_vocabulary_of_both_datasets(datasets: dict[str, PatientDataset]) -> None:
    page = conversion_page(counts_of(datasets), ALL)
    vocabulary = datasets["train"].info.vocabulary
    by_system = {str(row[0]): row for row in table(page, "datasets", 2).rows}
    assert sum(int(str(row[1]).replace(",", "")) for row in by_system.values()) == len(vocabulary) - 6
    tokens = sum(len(dataset.columns["codes"]) for dataset in datasets.values())
    assert sum(int(str(row[2]).replace(",", "")) for row in by_system.values()) == tokens
    assert set(by_system) == {"ATC", "ICD-10-CM"}


def test_a_page_does_not_depend_on_the_value_of_a_hidden_count(datasets: dict[str, PatientDataset]) -> None:
    """Whatever could be computed from a page, it is the same for 1 patient and for 10."""
    pages = {html(conversion_page(counts_of(datasets, few), FEW_HIDDEN)) for few in (lambda n: n, lambda n: 11 - n)}
    assert len(pages) == 1
    assert html(conversion_page(counts_of(datasets, lambda n: 11 - n), ALL)) not in pages


def test_what_stands_in_few_records_is_not_named(datasets: dict[str, PatientDataset]) -> None:
    text = markdown(conversion_page(counts_of(datasets), FEW_HIDDEN))
    assert "DOE" not in text and "1931" not in text and "HR" not in text
    assert "1 of 3 codes have fewer than 11 events each" in text and "V58.61" in text
    assert "| excluded: no plausible birth year | <11 |" in text and "Counts from 1 to 10 are hidden" in text


def test_attrition_tells_of_a_split_that_was_not_written(datasets: dict[str, PatientDataset]) -> None:
    train = {"train": datasets["train"]}
    steps = dict(attrition(replace(counts_of(datasets), datasets=train), ALL))
    assert steps["of these in the split that was not asked for"].value == len(datasets["val"])
    assert steps["left"].value == sum(map(len, datasets.values()))


def test_many_files_are_counted_by_kind(datasets: dict[str, PatientDataset]) -> None:
    shards = {f"shard-{i}.csv.gz": Counter({"rows": 20}) for i in range(30)}
    counts = replace(counts_of(datasets), reading=ReadingSummary(files=shards))
    assert table(conversion_page(counts, FEW_HIDDEN), "rows").rows == [["30 files, .csv.gz", "600"]]


def test_nothing_but_own_records_needs_no_further_section(datasets: dict[str, PatientDataset]) -> None:
    left = sum(map(len, datasets.values()))
    events, tokens = {("icd10cm", "kept", 2020): 10}, TokenizerSummary(patients=left)
    page = conversion_page(
        ConversionCounts("patients.json", ReadingSummary("json"), events, {}, tokens, 5, datasets), ALL
    )
    assert [section.key for section in page.sections] == ["summary", "systems", "years", "patients", "datasets"]
    assert page.sections[0].statements[0].verdict.text == "good" and len(table(page, "systems").rows) == 1


def test_bars_are_fewer_where_few_are_hidden() -> None:
    lengths = np.arange(110) % 55
    assert len(by_length(lengths, ALL)) > 15
    bars = by_length(lengths, FEW_HIDDEN)
    assert len(bars) == 5 and all(bars.values()), "none is left out"
