"""Days that cannot be: which are found, what becomes of them, and that nothing else changes."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import record, write_records

from exmed_bert.config import Resolved
from exmed_bert.data.convert import convert, run
from exmed_bert.data.implausible_dates import SHIFTED
from exmed_bert.data.patient import NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary import UNK
from exmed_bert.settings import ConvertSettings, ReadingSettings

TODAY = date(2026, 6, 30)


def patient(number: int, *days: str, **changes: Any) -> dict[str, Any]:
    """Return a record with a diagnosis on each of the days."""
    plain = {"drugs": [], "prescription_dates": [], "diagnoses": ["I10"] * len(days), "diagnosis_dates": list(days)}
    return record(number, **plain) | changes


def read(folder: Path, *records: dict[str, Any], **settings: Any) -> tuple[PatientColumns, PatientInput]:
    """Return the patients of records as they are read on `TODAY`, and the input with its counts."""
    source = PatientInput([write_records(folder / "p.json", list(records))], ReadingSettings(**settings))
    source.today = TODAY
    (found,) = source.quiet_chunks()
    return found, source


def days_of(patients: PatientColumns, row: int = 0) -> list[str]:
    events = patients.events
    return [day_text(day) for day in events.days[events.offsets[row] : events.offsets[row + 1]].tolist()]


def day_text(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(int(day))).isoformat()


@pytest.mark.parametrize(
    ("day", "settings", "reason"),
    [
        ("0001-01-01", {}, "on a placeholder day"),
        ("1900-01-01", {}, "on a placeholder day"),
        ("1970-01-01", {}, "on a placeholder day"),
        ("9999-12-31", {}, "on a placeholder day"),
        ("2010-10-10", {"placeholder_days": ["2010-10-10"]}, "on a placeholder day"),
        ("1964-12-31", {}, "before the year of birth"),
        ("2026-07-01", {}, "after today, 2026-06-30"),
        ("2020-01-01", {"extract_end": "2019-12-31"}, "after the extract's end, 2019-12-31"),
        ("2018-02-01", {}, "more than 30 days after death"),
        ("2018-01-03", {"days_after_death": 1}, "more than 1 days after death"),
    ],
)
def test_an_event_on_a_day_that_cannot_be_is_dropped_and_counted(
    day: str, settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    died = {"death_date": "2018-01-01"} if "death" in reason else {}
    found, source = read(tmp_path, patient(1, "2015-03-01", day, "2017-05-05", **died), **settings)
    assert days_of(found) == ["2015-03-01", "2017-05-05"]
    assert source.summary.implausible_events == {reason: 1} and source.read == (1, 3)

    kept, _ = read(
        tmp_path, patient(1, "2015-03-01", day, "2017-05-05", **died), **settings, keep_implausible_dates=True
    )
    assert days_of(kept) == ["2015-03-01", day, "2017-05-05"]
    assert kept.events.doubtful is not None and kept.events.doubtful.tolist() == [False, True, False]


@pytest.mark.parametrize("day", ["1965-01-01", "1970-01-02", "2026-06-30", "2018-01-31"])
def test_the_limits_themselves_are_plausible(day: str, tmp_path: Path) -> None:
    found, source = read(tmp_path, patient(1, "1968-03-01", day, death_date="2018-01-01" if day < "2020" else None))
    assert days_of(found) == ["1968-03-01", day] and not source.summary.implausible_events


def test_the_first_day_of_1970_is_plausible_where_the_record_goes_back_so_far(tmp_path: Path) -> None:
    found, source = read(tmp_path, patient(1, "1970-01-01", "1968-03-01"), patient(2, "1970-01-01", "1971-01-01"))
    assert days_of(found) == ["1970-01-01", "1968-03-01"] and days_of(found, 1) == ["1971-01-01"]
    assert source.summary.implausible_events == {"on a placeholder day": 1}


def test_today_does_not_bound_shifted_dates(tmp_path: Path) -> None:
    shifted = patient(1, "2150-01-01", "1900-01-01", "2180-01-01", birth_year=2100, observation_end="2181-01-01")
    found, source = read(tmp_path, shifted, patient(2, "2150-01-01"), patient(3, "2020-01-01", "2150-01-01"))
    assert days_of(found) == ["2150-01-01", "2180-01-01"] and days_of(found, 1) == []  # nobody is 185 years old
    assert days_of(found, 2) == ["2020-01-01"]
    assert day_text(found.period("observation_end")[0]) == "2181-01-01"
    assert source.summary.notes == [SHIFTED]
    found, _ = read(tmp_path, shifted, extract_end="2160-01-01")
    assert days_of(found) == ["2150-01-01"] and day_text(found.period("observation_end")[0]) == "2160-01-01"


def test_generated_patients_are_bounded_by_the_end_that_they_were_generated_with(tmp_path: Path) -> None:
    meta = {"format": "exmed-bert-synthetic-patients", "options": {"end_date": "2030-12-31"}}
    (tmp_path / "p.meta.json").write_text(json.dumps(meta))
    found, source = read(tmp_path, patient(1, "2020-01-01", "2030-12-31", "2031-01-01"))
    assert days_of(found) == ["2020-01-01", "2030-12-31"]
    assert source.summary.implausible_events == {"after the end of the generated data, 2030-12-31": 1}


def test_days_of_observation_and_death_that_cannot_be_are_unknown(tmp_path: Path) -> None:
    records = [
        patient(1, "2020-01-01", observation_start="1900-01-01", observation_end="9999-12-31", death_date="9999-12-31"),
        patient(2, "2020-01-01", observation_start="2021-01-01", observation_end="2020-01-01", death_date="1960-01-01"),
        patient(3, "2020-01-01", observation_start="1950-01-01", observation_end="2026-06-30", death_date="2026-06-30"),
    ]
    found, source = read(tmp_path, *records)
    known = {name: (days[days > -(10**6)]).tolist() for name, days in found.periods.items()}
    assert {name: list(map(day_text, days)) for name, days in known.items()} == {
        "observation_start": ["1965-01-01"],  # the year of birth
        "observation_end": ["2026-06-30"],
        "death_date": ["2026-06-30"],
    }
    assert source.summary.implausible_periods == dict.fromkeys(found.periods, 2)


def test_a_day_of_birth_in_another_year_is_unknown(tmp_path: Path) -> None:
    records = [patient(1, "2020-01-01", birth_date="1965-06-30"), patient(2, "2020-01-01", birth_date="1964-06-30")]
    found, source = read(tmp_path, *records)
    assert [day_text(day) for day in found.period("birth_date") if day != NO_DAY] == ["1965-06-30"]
    assert source.summary.implausible_periods == {"birth_date": 1}
    found, _ = read(
        tmp_path,
        patient(1, "2101-01-01", birth_year=1801, birth_date="1801-02-03"),
        max_age=89,
        extract_end="2110-01-01",
    )
    assert found.birth_years.tolist() == [2012] and found.period("birth_date").tolist() == [NO_DAY]


def test_who_is_too_old_at_the_first_event_is_left_out_or_takes_the_largest_age(tmp_path: Path) -> None:
    records = [patient(1, "2101-05-05", "2103-05-05", birth_year=1801), patient(2, "2020-01-01", birth_year=1925)]
    found, source = read(tmp_path, *records, extract_end="2110-01-01")
    assert found.patient_ids == [2] and source.summary.excluded == {"implausible age at the first event": 1}
    found, source = read(tmp_path, *records, extract_end="2110-01-01", max_age=89)
    assert found.birth_years.tolist() == [2101 - 89, 2020 - 89] and not source.summary.excluded


def test_a_conversion_says_what_it_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = (date.today() + timedelta(3)).isoformat()
    days = ["2015-03-01", "2016-03-01", "2017-03-01", late]
    path = write_records(tmp_path / "p.json", [patient(i, *days) for i in range(40)])
    settings = ConvertSettings(input=path, output=tmp_path / "d.pt", min_observations=3)
    run(Resolved(settings, {}))
    assert f"dropped: events after today, {date.today()}" in capsys.readouterr().out
    saved = json.loads((tmp_path / "d.settings.json").read_text())["reading"]
    assert saved["today"] == date.today().isoformat() and list(saved["implausible_dates"].values()) == ["40"]
    assert f"dropped: events after today, {date.today()}" in (tmp_path / "d_conversion" / "report.html").read_text()

    made = convert(settings.model_copy(update={"keep_implausible_dates": True, "output": tmp_path / "k.pt"}))
    ages = made.datasets["train"].columns["ages"].numpy().reshape(-1, 4)
    assert (ages[:, 3] == UNK).all() and (ages[:, :3] != UNK).all()


def test_columns_keep_what_is_doubtful(tmp_path: Path) -> None:
    records = [patient(i, "2015-03-01", "9999-12-31", "2017-05-05") for i in range(3)]
    found, _ = read(tmp_path, *records, keep_implausible_dates=True)
    events = found.take(np.array([2, 0, 0])).up_to(np.full(3, 10**7)).events.where(np.arange(9) % 3 > 0)
    assert events.doubtful is not None and events.doubtful.tolist() == [True, False] * 3
