"""The cohort of a task: index dates, labels, attrition, splits; nothing after the index date is in a history."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import WithSplits, record, write_records

from exmed_bert.cohorts.cohort import build, check_nothing_after_index
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.label_file import read_labels
from exmed_bert.cohorts.labeled import TEST, TRAIN, VALIDATION, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.splits import assign_splits
from exmed_bert.cohorts.tasks.base import Selection, Task
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.cohorts.tasks.prolonged_stay import ProlongedStay
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import FROM_INPUT, SplitRule
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary

START = date(2020, 1, 1)
KNOWN = CodeVocabulary.build([("atc", "C10AA05"), *(("icd10cm", code) for code in ("I10", "I50.9", "E11.9"))])
FORM = ModelInput(KNOWN, 50, "years", [SplitRule(42, 0.5)])


def patient(number: int, events: dict[int, list[str]], **changes: Any) -> dict[str, Any]:
    """Return a record whose diagnoses come so many days after START."""
    dates = [(START + timedelta(days=day)).isoformat().replace("-", "") for day, codes in events.items() for _ in codes]
    codes = [code for codes in events.values() for code in codes]
    return record(number, diagnoses=codes, diagnosis_dates=dates, drugs=[], prescription_dates=[]) | changes


def first_occurrence(
    index: str = "last-visit-before", gap: int = 0, endpoint: str = "I50.9", outcomes: bool = True
) -> FirstOccurrence:
    return FirstOccurrence(Endpoint(endpoint), IndexRule.parse(index, 365, 7), 365, gap, outcomes)


def built(tmp_path: Path, records: list[Any], task: Task, least: int = 1) -> Cohort:
    return build(PatientInput([write_records(tmp_path / "patients.json", records)]), task, FORM, least, seed=1)


def labels_of(cohort: Cohort) -> dict[int, int]:
    patients = cohort.patients
    return {patients.dataset.patient_id(i): int(patients.labels[i]) for i in range(len(patients))}


class TestFirstOccurrence:
    def test_case_control_and_exclusions(self, tmp_path: Path) -> None:
        cohort = built(
            tmp_path,
            [
                patient(1, {0: ["I10"], 300: ["I50.9"], 400: ["I10"]}),  # index day 0, the endpoint 300 days later
                patient(2, {0: ["I10"], 300: ["I10"], 400: ["I10"]}),  # nothing came
                patient(3, {0: ["I10", "I50.9"], 400: ["I10"]}),  # has it already
                patient(4, {0: ["I10"], 200: ["I10"]}),  # observed for 200 days
                patient(5, {0: ["I10"], 30: ["I50.9"], 390: ["I10"]}),  # at day 30
            ],
            task := first_occurrence(gap=60),
        )
        assert labels_of(cohort) == {1: 1, 2: 0}
        assert task.exclusions == {
            "no event": 0,
            "no visit with the horizon of follow-up after it": 1,
            "not yet observed": 0,
            "endpoint on or before the index date": 1,
            "endpoint within the gap": 1,
            "censored: observed for less than the horizon after the index date": 0,
        }
        assert sum(task.exclusions.values()) + len(cohort.patients) == 5

    def test_a_fixed_date_censors_those_who_leave_early_with_and_without_it(self, tmp_path: Path) -> None:
        cohort = built(
            tmp_path,
            [
                patient(1, {0: ["I10"], 100: ["I50.9"]}),  # leaves early, with the endpoint
                patient(2, {0: ["I10"], 100: ["I10"]}),  # leaves early, without
                patient(3, {0: ["I10"], 376: ["I50.9"], 380: ["I10"]}),  # a day after the horizon
                patient(4, {0: ["I10"], 375: ["I50.9", "I10"]}),  # on its last day
                patient(5, {20: ["I10"], 500: ["I10"]}),  # no history yet
            ],
            task := first_occurrence(f"fixed:{START + timedelta(days=10)}"),
        )
        assert labels_of(cohort) == {3: 0, 4: 1}
        assert task.exclusions["censored: observed for less than the horizon after the index date"] == 2
        assert ("excluded: fewer than 1 codes by the index date", 1) in cohort.attrition

    @pytest.mark.parametrize("rule", ["last-visit-before", "random"])
    def test_the_index_date_is_a_visit_with_the_horizon_after_it_whatever_the_outcome(
        self, tmp_path: Path, rule: str
    ) -> None:
        rng = np.random.default_rng(3)
        days = [sorted(rng.choice(1500, size=rng.integers(3, 12), replace=False).tolist()) for _ in range(200)]
        plain = [patient(i, {d: ["I10"] for d in own}) for i, own in enumerate(days)]
        # The same visits, with the endpoint at one of them.
        ill = [
            patient(i, {d: ["I10", *["I50.9"] * (d == own[len(own) // 2])] for d in own}) for i, own in enumerate(days)
        ]
        path = write_records(tmp_path / "plain.json", plain)
        without = build(PatientInput([path]), first_occurrence(rule), FORM, 1, seed=1).patients
        ill_path = write_records(tmp_path / "ill.json", ill)
        with_it = build(PatientInput([ill_path]), first_occurrence(rule), FORM, 1, seed=1).patients
        same = np.isin(without.dataset.columns["patient_hashes"], with_it.dataset.columns["patient_hashes"])
        assert (without.index_days[same] == with_it.index_days).all()
        assert with_it.labels.sum() > without.labels.sum() == 0
        offset = (START - date(1970, 1, 1)).days
        for row in range(len(without)):
            own = days[without.dataset.patient_id(row)]
            index = without.index_days[row] - offset
            assert index in own and index <= own[-1] - 365
            if rule == "last-visit-before":
                assert index == max(day for day in own if day <= own[-1] - 365)


class TestEndpoints:
    def test_prefixes_and_sets(self) -> None:
        def found(endpoint: Endpoint, system: str) -> list[str]:
            table = ["E119", "E11.65", "E10.9", "C10AA05", "E1165"]
            belongs = endpoint.among([(system, code) for code in table])
            return [code for code, one in zip(table, belongs, strict=True) if one]

        assert found(Endpoint("E11*"), "icd10cm") == ["E119", "E11.65", "E1165"]
        assert found(Endpoint("E11.65, E10.9"), "icd10cm") == ["E11.65", "E10.9", "E1165"]
        assert found(Endpoint("statins", {"statins": ["C10AA*"]}), "atc") == ["C10AA05"]
        assert found(Endpoint("ICD:C10AA*"), "atc") == []

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("icd9cm:250*", ("icd9cm", "250.01")),
            ("ICD-9-CM: 25001", ("icd9cm", "250.01")),
            ("http://hl7.org/fhir/sid/icd-10-cm:E11.9", ("icd10cm", "E119")),
            ("250.01", ("icd9cm", "25001")),
            ("ndc:0093-1016-01", ("ndc", "00093101601")),
            ("phecode:EM_202*", ("phecode", "EM_202.2")),
        ],
    )
    def test_a_code_system_is_named_by_any_of_its_names(self, text: str, key: tuple[str, str]) -> None:
        others = [("atc", "C10AA05"), ("icd10cm", "I10"), ("rxnorm", "25001")]
        assert Endpoint(text).among([key, *others]).tolist() == [True, False, False, False]

    @pytest.mark.parametrize("text", ["", "heart failure", "E11.9*9", "*", "ICD:", "ATC:E11.9"])
    def test_what_is_no_endpoint_is_refused(self, text: str) -> None:
        with pytest.raises(OptionError, match="--endpoint"):
            Endpoint(text)

    def test_an_unknown_code_system_is_named(self) -> None:
        with pytest.raises(
            OptionError, match=r"--endpoint: 'ICD11:5A11': unknown code system 'ICD11', expected one of"
        ):
            Endpoint("ICD11:5A11")

    def test_a_code_of_two_systems_has_to_be_told_apart(self) -> None:
        endpoint = Endpoint("C10")
        endpoint.among([("icd10cm", "C10"), ("atc", "C10")])
        with pytest.raises(
            OptionError, match="'C10' is a code of ATC and of ICD-10-CM here, expected ATC:C10 or ICD:C10"
        ):
            endpoint.resolve()

    def test_a_code_is_tied_to_the_system_it_was_found_in(self) -> None:
        endpoint = Endpoint("C10*,I10,ICD:J*")
        endpoint.among([("icd10cm", "C10.9"), ("icd10cm", "J06.9")])
        endpoint.resolve()
        assert endpoint.texts == ["ICD:C10*", "I10", "ICD:J*"]
        assert Endpoint(",".join(endpoint.texts)).texts == endpoint.texts
        assert endpoint.among([("atc", "C10AA05"), ("icd10cm", "C10.1")]).tolist() == [False, True]


class TestNothingOfTheFuture:
    """A code that spells out the label is planted on the days after the index date."""

    def planted(self) -> list[Any]:
        return [
            patient(
                i,
                {0: ["I10"], 10: ["E11.9"]}
                | {11: ["Z99.9" if i % 2 else "I10"], 400 + i: ["E11.9", "I50.9"][: 1 + i % 2]},
            )
            for i in range(40)
        ]

    def test_histories_end_with_the_index_date(self, tmp_path: Path) -> None:
        index = START + timedelta(days=10)
        patients = built(tmp_path, self.planted(), first_occurrence(f"fixed:{index}")).patients
        leak = [patients.dataset.patient(i) for i in range(len(patients))]
        assert len(leak) and all(max(who.diagnosis_dates) == index for who in leak)
        assert not any("Z99.9" in who.diagnoses for who in leak)
        assert "Z99.9" not in patients.dataset.info.vocabulary.ids  # not even its name

    def test_the_check_sees_a_leak(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("exmed_bert.data.patient.PatientColumns.up_to", lambda patients, days: patients)
        with pytest.raises(ValueError, match="reaches beyond the index date"):
            built(tmp_path, self.planted(), first_occurrence(f"fixed:{START + timedelta(days=10)}"))

    def test_what_comes_after_changes_no_history(self, tmp_path: Path) -> None:
        index = f"fixed:{START + timedelta(days=10)}"
        planted = built(tmp_path, self.planted(), first_occurrence(index)).patients
        cut = [patient(i, {0: ["I10"], 10: ["E11.9"]}) for i in range(40)]
        alone = built(tmp_path, cut, first_occurrence(index, outcomes=False)).patients
        rows = np.flatnonzero(
            np.isin(alone.dataset.columns["patient_hashes"], planted.dataset.columns["patient_hashes"])
        )
        alone_dataset = alone.dataset.subset(rows)
        for name in ("codes", "entities", "ages", "visit_ids", "visit_days", "static_sex", "static_state"):
            assert (alone_dataset.columns[name] == planted.dataset.columns[name]).all(), name

    def test_the_check_looks_at_every_patient(self, tmp_path: Path) -> None:
        patients = built(tmp_path, self.planted(), first_occurrence(f"fixed:{START + timedelta(days=10)}")).patients
        patients.index_days[-1] -= 1
        with pytest.raises(ValueError, match=str(patients.dataset.patient_id(len(patients) - 1))):
            check_nothing_after_index(patients)


class TestLabels:
    def write(self, tmp_path: Path, *lines: str) -> Path:
        path = tmp_path / "labels.csv"
        path.write_text("\n".join(["subject_id,prediction_time,boolean_value", *lines]))
        return path

    def test_labels_of_ones_own(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "1,2020-01-11 12:00:00,true", "1,2020-02-20,False", "9,2020-01-01,1")
        records = [patient(1, {0: ["I10"], 10: ["E11.9"], 60: ["I50.9"]}), patient(2, {0: ["I10"]})]
        task = OwnLabels(path)
        patients = built(tmp_path, records, task).patients
        assert patients.labels.tolist() == [1, 0] and patients.dataset.lengths.tolist() == [2, 2]
        assert len(set(patients.splits.tolist())) == 1  # one patient, one split
        assert task.found == 2 and task.exclusions["no label"] == 1

    def test_parquet_is_read_alike(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "1,2020-01-11,true", "2,2020-02-20,false")
        table = {
            "subject_id": [1, 2],
            "prediction_time": [datetime(2020, 1, 11, 23, 59), datetime(2020, 2, 20)],
            "boolean_value": [True, False],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "labels.parquet")
        one, other = read_labels(path), read_labels(tmp_path / "labels.parquet")
        assert all((getattr(one, name) == getattr(other, name)).all() for name in ("patient_hashes", "days", "labels"))

    @pytest.mark.parametrize(
        ("line", "parts"),
        [
            ("1,2020-13-01,true", ("row 1", "prediction_time", "2020-13-01")),
            ("1,2020-01-01,maybe", ("row 1", "boolean_value", "maybe", "true or false")),
            (",2020-01-01,true", ("row 1", "subject_id")),
            ("1,2020-01-01,true\n1,2020-01-01,false", ("row 2", "one label per patient and day")),
        ],
    )
    def test_a_wrong_value_is_named(self, tmp_path: Path, line: str, parts: tuple[str, ...]) -> None:
        with pytest.raises(InputError) as raised:
            read_labels(self.write(tmp_path, line))
        assert all(part in str(raised.value) for part in parts), raised.value

    @pytest.mark.parametrize("ids", [[0.0, 1.0, 12.0], ["0.0", "1.", "12.00"], [0, 1, 12]])
    def test_whole_numbers_may_be_written_as_floating_point_ones(self, ids: list[Any], tmp_path: Path) -> None:
        table = {"subject_id": ids, "prediction_time": [date(2021, 1, 1)] * 3, "boolean_value": [True, False, True]}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "labels.parquet")
        for zero in (0, "0"):
            records = [patient(i, {0: ["I10"]}) for i in (zero, 1, 2, 12)]
            cohort = built(tmp_path, records, task := OwnLabels(tmp_path / "labels.parquet"))
            assert labels_of(cohort) == {zero: 1, 1: 0, 12: 1} if zero == 0 else len(cohort.patients) == 3
            assert task.exclusions["no label"] == 1 and task.label_attrition(3)[1][1] == 0

    def test_ids_that_are_no_whole_numbers_stay_as_they_are_written(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "1.0,2021-01-01,true", "2.0,2021-01-01,false", "9007199254740993.0,2021-01-01,true")
        cohort = built(tmp_path, [patient(i, {0: ["I10"]}) for i in ("1.0", "2", "A-1")], OwnLabels(path))
        assert labels_of(cohort) == {"1.0": 1}
        with pytest.raises(
            InputError, match=r"row 3 \(subject_id '9007199254740993.0'\): subject_id: .* may stand for"
        ):
            built(tmp_path, [patient(i, {0: ["I10"]}) for i in (1, 2)], OwnLabels(path))

    def test_labels_of_nobody_name_ids_of_both_sides(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "7.0,2021-01-01,true", "8.0,2021-01-01,false", "8.0,2021-02-01,false")
        with pytest.raises(InputError) as raised:
            built(tmp_path, [patient(f"A-{i}", {0: ["I10"]}) for i in range(5)], OwnLabels(path))
        for part in ("no patient is left", "5 excluded: no label", "none of the 3 labels", "labels.csv"):
            assert part in str(raised.value)
        assert "are such as 'A-0', 'A-1', 'A-2'; those of the labels are such as '7.0', '8.0'" in str(raised.value)

    @pytest.mark.parametrize("csv", [False, True])
    def test_shards_and_columns_in_any_letter_case(self, csv: bool, tmp_path: Path) -> None:
        folder, expected = tmp_path / "labels", [(3, 0), (1, 1), (2, 0), (1, 0)]
        times = [datetime(2021, 1, 1, 8), date(2021, 1, 2), "2021-01-03T23:59:59", "2021-01-04"]
        for number, ((who, label), time) in enumerate(zip(expected, times, strict=True)):
            (shard := folder / ("train", "held_out")[number % 2] / f"{number}").parent.mkdir(
                parents=True, exist_ok=True
            )
            if csv:
                spelled = time if isinstance(time, str) else time.isoformat()
                shard.with_suffix(".csv").write_text(
                    f"BOOLEAN_VALUE,x,Subject_ID,Prediction_Time\n{label},,{who},{spelled}\n"
                )
            else:
                table = {"Subject_ID": [who], "PREDICTION_TIME": [time], "boolean_VALUE": [bool(label)], "x": [None]}
                pyarrow.parquet.write_table(pyarrow.table(table), shard.with_suffix(".parquet"))
        for name in (folder / "._0.parquet", folder / "__MACOSX" / "0.parquet"):
            name.parent.mkdir(exist_ok=True)
            name.write_bytes(b"no labels")
        found = read_labels(folder)
        days = [date(2021, 1, day) - date(1970, 1, 1) for day in (1, 2, 3, 4)]
        order = np.lexsort(([day.days for day in days], hash_patient_ids([who for who, _ in expected])))
        assert found.days.tolist() == [days[i].days for i in order]
        assert found.labels.tolist() == [expected[i][1] for i in order]

        table = {"subject_id": [5, 5], "prediction_time": [date(2021, 1, 1), None], "boolean_value": [True, False]}
        pyarrow.parquet.write_table(pyarrow.table(table), folder / "zz.parquet")
        with pytest.raises(InputError, match=r"labels/zz\.parquet: row 2 \(subject_id 5\): prediction_time: None"):
            read_labels(folder)
        identity = OwnLabels(folder).identity()
        pyarrow.parquet.write_table(pyarrow.table(table | {"more": [1, 2]}), folder / "zz.parquet")
        assert OwnLabels(folder).identity() != identity

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("nowhere.csv", "file not found"),
            ("labels.txt", "unknown kind of file, expected .parquet, .csv"),
            ("empty", "holds no files of labels"),
            ("cut.parquet", "cut.parquet: cannot be read"),
            ("cut.csv", "cut.csv: cannot be read"),
        ],
    )
    def test_what_holds_no_labels_is_refused(self, name: str, part: str, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for file in ("labels.txt", "cut.parquet", "cut.csv"):
            (tmp_path / file).write_bytes(b"")
        with pytest.raises(InputError, match=part):
            read_labels(tmp_path / name)

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("subject_id,label\n1,1\n")
        with pytest.raises(InputError, match="column prediction_time is missing"):
            read_labels(tmp_path / "labels.csv")


class TestSplits:
    HASHES = hash_patient_ids(range(20_000))

    def test_no_patient_of_a_pretraining_is_validated_or_tested_on(self) -> None:
        rules = [SplitRule(42, 0.6), SplitRule(5, 0.3)]
        splits = assign_splits(self.HASHES, rules, seed=1)
        seen = rules[0].trains_on(self.HASHES) | rules[1].trains_on(self.HASHES)
        assert ((splits == TRAIN) == seen).all()
        assert abs((splits == VALIDATION).sum() / (~seen).sum() - 1 / 3) < 0.02

    def test_it_is_the_rule_of_the_conversion(self, small_datasets: Path) -> None:
        from exmed_bert.data.dataset import PatientDataset

        train, val = (PatientDataset.load(small_datasets / f"small_{name}.pt") for name in ("train", "val"))
        rule = SplitRule(train.info.split_seed, train.info.train_ratio)
        assert rule.trains_on(train.columns["patient_hashes"].numpy()).all()
        assert not rule.trains_on(val.columns["patient_hashes"].numpy()).any()

    def test_those_of_the_input_where_a_pretraining_took_them(self) -> None:
        of_input = np.arange(20_000) % 3
        splits = assign_splits(self.HASHES, [FROM_INPUT], 1, of_input)
        assert (splits == np.array([TRAIN, VALIDATION, TEST])[of_input]).all()
        rule = SplitRule(42, 0.2)
        after_another = assign_splits(self.HASHES, [rule, FROM_INPUT], 1, of_input)
        assert (after_another == np.where(rule.trains_on(self.HASHES), TRAIN, splits)).all()

    def test_a_cohort_has_the_splits_of_its_input(self, with_splits: WithSplits, tmp_path: Path) -> None:
        records = [patient(i, {0: ["I10"], 300: ["I50.9" if i % 2 else "I10"], 400: ["I10"]}) for i in range(40)]
        form = replace(FORM, pretraining=[FROM_INPUT])
        source = PatientInput([write_records(tmp_path / "patients.json", records)])
        with pytest.raises(InputError, match=r"patients.json: puts no patient into a split, .* pretrained with"):
            build(source, first_occurrence(), form, 1, seed=1)
        with_splits(lambda who: int(who) % 4 - 1)
        cohort = build(source, first_occurrence(), form, 1, seed=1)
        found = cohort.patients
        assert found.splits.tolist() == [found.dataset.patient_id(row) % 4 - 1 for row in range(30)]
        assert ("excluded: in no split of the input", 10) in cohort.attrition and (
            "patients left",
            30,
        ) in cohort.attrition
        assert len(build(source, first_occurrence(), FORM, 1, seed=1).patients) == 40, "other models do not need them"
        with_splits(lambda who: -1)
        with pytest.raises(InputError, match=r"no patient is left: .*40 excluded: in no split of the input"):
            build(source, first_occurrence(), form, 1, seed=1)

    def test_shares_where_the_pretraining_is_unknown(self) -> None:
        splits = assign_splits(self.HASHES, None, seed=1)
        shares = [(splits == split).mean() for split in (TRAIN, VALIDATION, TEST)]
        assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)


def test_codes_keep_the_models_ids_and_new_ones_come_after(tmp_path: Path) -> None:
    cohort = built(tmp_path, [patient(1, {0: ["I10", "E11.95"], 400: ["I10"]})], first_occurrence())
    vocabulary = cohort.patients.dataset.info.vocabulary
    assert vocabulary.tokens[: len(FORM.vocabulary)] == FORM.vocabulary.tokens
    assert cohort.new_codes == ("E11.95",) and vocabulary.tokens[-1] == "E11.95"
    assert cohort.patients.dataset.columns["codes"].tolist() == [FORM.vocabulary.ids["I10"], len(FORM.vocabulary)]
    assert vocabulary.tokens[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS


def test_prolonged_stay_takes_the_whole_history(tmp_path: Path) -> None:
    records = [patient(i, {0: ["I10"], 90: ["E11.9"]}, had_plos=[True, False, None][i % 3]) for i in range(9)]
    cohort = built(tmp_path, records, task := ProlongedStay())
    assert labels_of(cohort) == {i: int(i % 3 == 0) for i in range(9) if i % 3 != 2}
    assert task.exclusions["length of stay not recorded"] == 3 and (cohort.patients.dataset.lengths == 2).all()


class TestAttrition:
    RECORDS = (
        patient(1, {0: ["I10"], 300: ["I50.9"], 400: ["I10"]}, had_plos=True),
        patient(2, {0: ["I10"], 10: ["E11.9"], 400: ["I10"]}),
        patient(3, {0: ["I50.9"], 400: ["I10"]}, had_plos=None),
        patient(4, {0: ["I10"], 200: ["I10"]}),
        patient(5, {0: ["I10"], 30: ["I50.9"], 390: ["I10"]}),
        patient(6, {500: ["I10"]}),
        patient(7, {}),
        patient(8, {}, had_plos=None),
        patient(9, {0: ["I10"], 5: ["E11.9"], 380: ["I50.9"], 800: ["I10"]}),
    )

    @staticmethod
    def labels(folder: Path) -> OwnLabels:
        """Return nine labels: three of patient 1, one of which has too few codes, and one of nobody in the file."""
        lines = [(1, 0), (1, 350), (1, 400), (2, 0), (3, 500), (5, 40), (7, 0), (9, 5), (77, 0)]
        rows = [f"{who},{START + timedelta(days=day)},{who % 2 == 1}" for who, day in lines]
        (folder / "labels.csv").write_text("\n".join(["subject_id,prediction_time,boolean_value", *rows]))
        return OwnLabels(folder / "labels.csv")

    @pytest.mark.parametrize(
        "task",
        [
            *(
                first_occurrence(rule, gap, outcomes=outcomes)
                for rule in ("last-visit-before", "random", "last-visit", f"fixed:{START + timedelta(days=15)}")
                for gap, outcomes in ((60, True), (0, False))
                if rule != "last-visit" or not outcomes
            ),
            ProlongedStay(),
            ProlongedStay(outcomes=False),
            ProlongedStay(IndexRule("random", 365, 7), outcomes=False),
            OwnLabels(None),
            OwnLabels(None, IndexRule("last-visit-before", 365)),
            None,  # the labels above
        ],
    )
    def test_patients_read_less_all_exclusions_are_the_patients_left(self, tmp_path: Path, task: Task | None) -> None:
        cohort = built(tmp_path, list(self.RECORDS), task or self.labels(tmp_path), least=2)
        attrition = dict(cohort.attrition)
        assert len(attrition) == len(cohort.attrition)
        excluded = sum(count for what, count in cohort.attrition if what.startswith("excluded: "))
        patients = {cohort.patients.dataset.patient_id(row) for row in range(len(cohort.patients))}
        assert attrition["patients read"] - excluded == attrition["patients left"] == len(patients)
        assert attrition["patients read"] == len(self.RECORDS) and attrition["excluded: no event"] == 2

    def test_labels_have_an_attrition_of_their_own(self, tmp_path: Path) -> None:
        cohort = built(tmp_path, list(self.RECORDS), self.labels(tmp_path), least=2)
        assert cohort.attrition == [
            ("patients read", 9),
            ("excluded: no event", 2),
            ("excluded: no label", 2),
            ("excluded: fewer than 2 codes by the index date", 1),
            ("patients left", 4),
            ("labels read", 9),
            ("labels excluded: patient not in the input", 1),
            ("labels excluded: no event", 1),
            ("labels excluded: too few codes by the prediction time", 2),
            ("labels left", 5),
            ("  with the outcome", 5),
        ]
        assert len(cohort.patients) == 5

    def test_a_task_that_does_not_count_is_found_out(self, tmp_path: Path) -> None:
        class Careless(ProlongedStay):
            def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
                found = super().select(patients, hashes)
                return Selection(found.rows[1:], found.days[1:], found.labels[1:])

        with pytest.raises(ValueError, match="task plos: 3 exclusions of 9 patients, but 5 were selected"):
            built(tmp_path, list(self.RECORDS), Careless())


def test_an_empty_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patient is left"):
        built(tmp_path, [patient(1, {0: ["I10"]})], first_occurrence())
