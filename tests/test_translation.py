"""From the code systems that files declare to those that a model is trained on: maps, what is kept, what is counted."""

import gzip
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert.codes import CodeSystem, normalize, registered
from exmed_bert.codes.gem import alternatives
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.counting import add
from exmed_bert.data.patient import EPOCH, EventColumns, PatientColumns, day_number
from exmed_bert.data.translation import LEFT_OUT, MAPPED, UNKNOWN, TranslationSummary, Translator
from exmed_bert.data.translation.athena import Vocabularies
from exmed_bert.data.translation.code_map import read_code_map
from exmed_bert.settings import ReadingSettings

Coded = tuple[str, str, str]  # system, code, day as YYYY-MM-DD


def columns(patients: Sequence[Sequence[Coded]]) -> PatientColumns:
    """Return patients with these events."""
    table = list(dict.fromkeys((system, code) for events in patients for system, code, _ in events))
    flat = [event for events in patients for event in events]
    return PatientColumns(
        patient_ids=list(range(len(patients))),
        birth_years=np.full(len(patients), 1950, dtype=np.int32),
        static={"sex": [None] * len(patients), "state": [None] * len(patients)},
        plos=np.full(len(patients), -1, dtype=np.int8),
        events=EventColumns(
            codes=np.array([table.index((system, code)) for system, code, _ in flat], dtype=np.int32),
            days=np.array([day_number(date.fromisoformat(day)) for _, _, day in flat], dtype=np.int32),
            offsets=np.cumsum([0, *map(len, patients)]).astype(np.int64),
            table=table,
        ),
    )


def coded(patients: PatientColumns) -> list[list[Coded]]:
    """Return the events of each patient."""
    events = patients.events
    flat = [
        (*events.table[code], (EPOCH + timedelta(days=day)).isoformat())
        for code, day in zip(events.codes.tolist(), events.days.tolist(), strict=True)
    ]
    return [flat[a:b] for a, b in zip(events.offsets[:-1].tolist(), events.offsets[1:].tolist(), strict=True)]


def translate(*events: tuple[str, str], day: str = "2020-05-05", own_record: bool = False, **options: Any) -> list[Any]:
    """Return what the codes of one patient on one day become, each as (system, code)."""
    translator = Translator(ReadingSettings(**options), own_record)
    after = translator.apply(columns([[(*event, day) for event in events]]))
    return [(system, code) for system, code, _ in coded(after)[0]]


def outcomes(translator: Translator) -> dict[tuple[str, str], int]:
    """Return the events by declared system and outcome."""
    counts: dict[tuple[str, str], int] = {}
    for (system, outcome, _), count in translator.summary.events.items():
        counts[system, outcome] = counts.get((system, outcome), 0) + count
    return counts


class TestSpelling:
    def test_what_needs_no_change_is_returned_as_it_is(self):
        patients = columns([[("icd10cm", "E11.95", "2023-12-15"), ("atc", "C10AA97", "2022-03-20")], []])
        translator = Translator(ReadingSettings(), own_record=True)
        assert translator.apply(patients) is patients
        assert translator.summary.events == {("icd10cm", "kept", 2023): 1, ("atc", "kept", 2022): 1}
        assert not translator.summary.unmapped and translator.warnings() == []

    def test_codes_take_their_usual_spelling_and_equal_ones_become_one(self):
        written = ["I10.", "I10.-", "I10-", "E11.90+", "G63.2*", "E11.9G", "M54.5 ", "i10", "ICD10CM//E11.9", "J45.9"]
        patients = columns([[("icd10cm", code, "2011-01-03") for code in written] + [("atc", "c10aa05", "2011-01-03")]])
        translator = Translator(ReadingSettings(), own_record=True)
        after = translator.apply(patients)
        expected = ["I10", "I10", "I10", "E11.90", "G63.2", "E11.9", "M54.5", "I10", "E11.9", "J45.9", "C10AA05"]
        assert [code for _, code, _ in coded(after)[0]] == expected
        assert len(after.events.table) == len(set(after.events.table)) == len(set(expected))
        assert outcomes(translator) == {("icd10cm", "kept"): 10, ("atc", "kept"): 1}

    def test_what_is_no_code_of_a_kept_system_stays_as_it_is_written(self):
        assert translate(("icd10cm", "250.00"), ("atc", "aspirin")) == [("icd10cm", "250.00"), ("atc", "aspirin")]

    @pytest.mark.parametrize(
        ("options", "codes"),
        [
            ({}, ["E11.65", "I10", "C10AA05", "C10", "nothing"]),
            ({"icd_level": "category"}, ["E11", "I10", "C10AA05", "C10", "nothing"]),
            ({"atc_level": 4}, ["E11.65", "I10", "C10AA", "C10", "nothing"]),
            ({"atc_level": 3, "icd_level": "category"}, ["E11", "I10", "C10A", "C10", "nothing"]),
        ],
    )
    def test_levels(self, options: dict[str, Any], codes: list[str]):
        events = [("icd10cm", "E1165"), ("icd10cm", "I10"), ("atc", "C10AA05"), ("atc", "C10"), ("atc", "nothing")]
        assert [code for _, code in translate(*events, **options)] == codes

    def test_mapped_codes_take_the_level_too(self):
        assert translate(("icd9cm", "250.00"), icd_level="category") == [("icd10cm", "E11")]


class TestIcd9AmongOurDiagnoses:
    CODES = ("V58.61", "V27.0", "E8809", "V3000", "E11.9", "I10", "250.00")
    ICD9 = ("V58.61", "V27.0", "E8809", "V3000", "250.00")

    def kept(self, *codes: str, day: str = "2011-01-03", **options: Any) -> list[str]:
        """Return the codes that ICD-10-CM has, of those in our list of diagnoses."""
        after = translate(*(("icd10cm", code) for code in codes), day=day, own_record=True, **options)
        return [known for system, code in after if (known := normalize(code, system))]

    def test_they_are_unknown_and_said_once(self):
        patients = columns([[("icd10cm", code, "2011-01-03") for code in self.CODES]] * 20)
        translator = Translator(ReadingSettings(), own_record=True)
        after = [translator.apply(patients), translator.apply(patients)][1]
        assert [normalize(code, "icd10cm") for _, code, _ in coded(after)[0]] == [None] * 4 + ["E11.9", "I10", None]
        assert translator.summary.events == {("icd10cm", UNKNOWN, 2011): 200, ("icd10cm", "kept", 2011): 80}
        assert translator.summary.read_as_icd9 == dict.fromkeys(self.ICD9, 40)
        assert len(translator.warnings()) == 1
        for words in ("200 codes", "'250.00'", "--diagnosis-system icd9cm"):
            assert words in translator.warnings()[0]

    def test_without_neighbors_a_billable_code_of_icd10_stays(self):
        assert self.kept("V58.61", "V27.0", "V3000", "E880.9", "E8809", "E876") == ["E88.09", "E87.6"]
        assert self.kept("V58.61", "E8809", "E876", "4019") == []

    def test_a_form_that_icd9_does_not_have_stays(self):
        assert self.kept("E88.09", "V27.0XXA", "E11.9", "V00.01XA", "250.00") == [
            "E88.09",
            "V27.0XXA",
            "E11.9",
            "V00.01XA",
        ]

    def test_from_october_2015_on_only_the_form_decides(self):
        assert self.kept("V58.61", "E8809", "250.00", day="2015-09-30") == []
        assert self.kept("V58.61", "E8809", "250.00", day="2015-10-01") == ["V58.61", "E88.09"]

    def test_the_same_code_on_both_sides_of_the_date(self):
        days = ["2015-10-01", "2015-09-30", "2016-01-01", "1999-12-31"]
        after = Translator(ReadingSettings(), own_record=True).apply(
            columns([[("icd10cm", "V5861", day) for day in days]])
        )
        assert [(normalize(code, "icd10cm"), day) for _, code, day in coded(after)[0]] == [
            ("V58.61", "2015-10-01"),
            (None, "2015-09-30"),
            ("V58.61", "2016-01-01"),
            (None, "1999-12-31"),
        ]

    def test_what_another_format_declares_is_believed(self):
        translator = Translator(ReadingSettings())
        patients = columns([[("icd10cm", code, "2011-01-03") for code in ("V58.61", "E88.09", "250.00")]])
        assert translator.apply(patients) is patients
        assert translator.warnings() == []

    def test_the_list_is_icd9_where_the_user_says_so(self):
        after = translate(
            *(("icd10cm", code) for code in ("V58.61", "250.00", "4019", "E8809")),
            own_record=True,
            diagnosis_system="icd9cm",
        )
        assert after == [("icd10cm", code) for code in ("Z79.01", "E11.9", "I10", "W10.8XXA")]

    def test_the_list_changes_its_system_in_october_2015(self):
        events = [
            ("icd10cm", "V58.61", "2015-09-30"),
            ("icd10cm", "V58.61", "2015-10-01"),
            ("atc", "A10BA02", "2011-01-01"),
        ]
        translator = Translator(ReadingSettings(diagnosis_system="by-date"), own_record=True)
        assert coded(translator.apply(columns([events]))) == [
            [("icd10cm", "Z79.01", "2015-09-30"), ("icd10cm", "V58.61", "2015-10-01"), ("atc", "A10BA02", "2011-01-01")]
        ]
        assert outcomes(translator) == {("icd9cm", MAPPED): 1, ("icd10cm", "kept"): 1, ("atc", "kept"): 1}

    def test_a_declared_list_can_be_kept(self):
        options = {"own_record": True, "diagnosis_system": "icd9cm", "keep_systems": "icd9cm"}
        assert translate(("icd10cm", "25000"), **options) == [("icd9cm", "250.00")]


class TestIcd9:
    @pytest.mark.parametrize(
        ("code", "first", "every", "drop"),
        [
            ("250.00", ["E11.9"], ["E11.9"], ["E11.9"]),
            ("25000", ["E11.9"], ["E11.9"], ["E11.9"]),
            ("005.89", ["A05.4"], ["A05.4", "A05.8"], []),  # one or the other
            # both together
            ("249.41", ["E08.21", "E08.65"], ["E08.21", "E09.21", "E08.65"], []),
            ("754.35", ["Q65.01", "Q65.32"], ["Q65.01", "Q65.32", "Q65.02", "Q65.31"], []),
            ("365.70", [], [], []),  # maps to nothing
            ("250", [], [], []),  # no complete code
            ("999.99", [], [], []),
            ("hello", [], [], []),
        ],
    )
    def test_the_equivalence_mappings(self, code: str, first: list[str], every: list[str], drop: list[str]):
        for on_multiple, expected in (("first", first), ("all", every), ("drop", drop)):
            after = translate(("icd9cm", code), on_multiple=on_multiple)
            assert after == [("icd10cm", target) for target in expected], on_multiple

    def test_a_combination_without_a_choice_is_no_reason_to_drop(self):
        code = next(
            f"{category}.{rest:02}"
            for category in range(1, 1000)
            for rest in range(100)
            if len(found := alternatives(f"{category:03}.{rest:02}")) == 1
            and len(found[0]) > 1
            and all(len(choices) == 1 for choices in found[0])
        )
        together = [("icd10cm", choices[0]) for choices in alternatives(code)[0]]
        assert translate(("icd9cm", code), on_multiple="drop") == together and len(together) > 1

    def test_targets_are_codes_as_icd10_spells_them(self):
        for code in ("250.00", "005.89", "754.35", "V58.61", "E880.9", "820.8"):
            targets = [target for one in alternatives(code) for choices in one for target in choices]
            assert targets and all(normalize(target, "icd10cm") == target for target in targets)

    def test_unmapped_codes_are_left_out_and_counted(self):
        events = [("icd9cm", code, "2009-01-01") for code in ("36570", "250.00", "365.70", "x")]
        translator = Translator(ReadingSettings())
        after = translator.apply(columns([events, [], events[:1]]))
        assert coded(after) == [[("icd10cm", "E11.9", "2009-01-01")], [], []]
        assert translator.summary.unmapped == {("icd9cm", "365.70"): 3, ("icd9cm", "x"): 1}
        assert translator.summary.events == {("icd9cm", LEFT_OUT, 2009): 4, ("icd9cm", MAPPED, 2009): 1}


class TestKeptSystems:
    OTHERS = (("rxnorm", "617310"), ("ndc", "0093-1016-01"), ("snomedct", "73211009"), ("icd9cm", "25000"))

    def test_others_are_left_out_or_mapped(self):
        assert translate(*self.OTHERS, ("loinc", "718-7")) == [("icd10cm", "E11.9")]

    def test_they_stay_where_the_user_keeps_them(self):
        after = translate(*self.OTHERS, ("loinc", "718-7"), keep_systems="RxNorm, ndc,SNOMED,icd9")
        assert after == [
            ("rxnorm", "617310"),
            ("ndc", "00093101601"),
            ("snomedct", "73211009"),
            ("icd9cm", "250.00"),
        ]

    def test_wrong_codes_of_a_kept_system_stay_unknown(self):
        translator = Translator(ReadingSettings(keep_systems="snomedct"))
        after = translator.apply(columns([[("snomedct", "73211008", "2020-01-01")]]))
        assert coded(after) == [[("snomedct", "73211008", "2020-01-01")]]
        assert translator.summary.events == {("snomedct", UNKNOWN, 2020): 1}

    def test_our_own_record_keeps_all_unless_some_are_named(self):
        events = [*self.OTHERS, ("loinc", "718-7")]
        assert [system for system, _ in translate(*events, own_record=True)] == [system for system, _ in events]
        assert translate(*events, own_record=True, keep_systems="loinc") == [("icd10cm", "E11.9"), ("loinc", "718-7")]
        assert translate(("icd9cm", "25000"), own_record=True, diagnosis_system="by-date") == [("icd10cm", "E11.9")]

    def test_a_system_of_ones_own(self):
        with registered(CodeSystem(name="local", title="Local codes", events="findings", spelling=str.upper)):
            assert translate(("local", "a1"), own_record=True) == [("local", "A1")]
            assert translate(("local", "a1"), keep_systems="local") == [("local", "A1")]
            assert translate(("local", "a1")) == []

    def test_an_unknown_system_is_refused(self):
        with pytest.raises(OptionError, match="--keep-systems: unknown code system 'rxnom', expected one of atc"):
            Translator(ReadingSettings(keep_systems="ndc,rxnom"))


MAP_HEADER = "source_system,source_code,target_system,target_code\n"


class TestCodeMap:
    def written(self, folder: Path, rows: str, header: str = MAP_HEADER, name: str = "map.csv") -> Path:
        path = folder / name
        content = (header + rows).encode("utf-8-sig")
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    @pytest.mark.parametrize("name", ["map.csv", "map.csv.gz"])
    def test_a_map(self, tmp_path: Path, name: str):
        rows = 'SNOMED,"73211009 ",ICD-10-CM,e119,x\nRXCUI,617310,atc,ATC:C10AA05,x\nndc,0093-1016-01,atc, A10BA02 ,x\n'
        header = "Source_System,SOURCE_CODE,target_system, Target_Code,comment\n"
        path = self.written(tmp_path, rows, header, name)
        events = [("snomedct", "73211009"), ("rxnorm", " 617310"), ("ndc", "00093101601"), ("ndc", "00093101602")]
        assert translate(*events, code_map=path) == [("icd10cm", "E11.9"), ("atc", "C10AA05"), ("atc", "A10BA02")]

    @pytest.mark.parametrize(
        ("in_map", "in_data", "found"),
        [
            ("00093101601", "0093-1016-01", True),  # 4-4-2
            ("50090034701", "50090-347-01", True),  # 5-3-2
            ("60505260508", "60505-2605-8", True),  # 5-4-1
            ("60505-2605-8", "60505260508", True),
            ("00093101601", "0093101601", True),  # ten digits, where one eleven-digit form is in the map
            ("00931001601", "0093101601", True),
            ("00931016001", "0093101601", True),
            ("0093101601", "0093101601", True),
            ("00093101602", "0093101601", False),
            ("0093101601", "00093101601", False),  # the map leaves open which of three it is
        ],
    )
    def test_spellings_of_an_ndc(self, tmp_path: Path, in_map: str, in_data: str, found: bool):
        path = self.written(tmp_path, f"ndc,{in_map},atc,A10BA02\n")
        assert translate(("ndc", in_data), code_map=path) == ([("atc", "A10BA02")] if found else [])

    def test_an_ndc_of_ten_digits_that_can_be_two_is_unmapped(self, tmp_path: Path):
        path = self.written(tmp_path, "ndc,00093101601,atc,A10BA02\nndc,00931001601,atc,A10BA02\n")
        translator = Translator(ReadingSettings(code_map=path))
        translator.apply(columns([[("ndc", "0093101601", "2020-01-01")]]))
        assert translator.summary.unmapped == {("ndc", "0093101601"): 1}

    @pytest.mark.parametrize(
        ("on_multiple", "targets"), [("first", ["E11.9"]), ("all", ["E11.9", "I10"]), ("drop", [])]
    )
    def test_several_targets_in_the_order_of_the_file(self, tmp_path: Path, on_multiple: str, targets: list[str]):
        rows = "snomedct,73211009,icd10cm,E11.9\nsnomedct,73211009,icd10cm,I10\nsnomedct,73211009,icd10cm,E119\n"
        after = translate(("snomedct", "73211009"), code_map=self.written(tmp_path, rows), on_multiple=on_multiple)
        assert after == [("icd10cm", target) for target in targets]

    def test_the_map_comes_before_the_equivalence_mappings_and_after_what_is_kept(self, tmp_path: Path):
        path = self.written(tmp_path, "icd9cm,250.00,icd10cm,E11.65\nicd10cm,I10.90,icd10cm,I10\n")
        events = [("icd9cm", "25000"), ("icd9cm", "401.9"), ("icd10cm", "I10.90G"), ("icd10cm", "E11.9")]
        assert [code for _, code in translate(*events, code_map=path)] == ["E11.65", "I10", "I10", "E11.9"]
        kept = translate(*events, code_map=path, keep_systems="icd9cm")
        assert [code for _, code in kept] == ["250.00", "401.9", "I10", "E11.9"]

    def test_what_the_map_leads_to_stays_or_goes_on(self, tmp_path: Path):
        path = self.written(tmp_path, "snomedct,73211009,icd9cm,250.00\nndc,00093101601,rxnorm,617310\n")
        events = [("snomedct", "73211009"), ("ndc", "0093-1016-01")]
        assert translate(*events, code_map=path) == [("icd10cm", "E11.9"), ("rxnorm", "617310")]

    def test_sources_that_are_no_codes_of_their_system_are_matched_as_written(self, tmp_path: Path):
        path = self.written(tmp_path, "rxnorm,OMOP4711,atc,A10BA02\n")
        assert translate(("rxnorm", "OMOP4711 "), ("rxnorm", "OMOP4712"), code_map=path) == [("atc", "A10BA02")]

    def test_our_own_record_is_mapped_where_the_map_has_its_codes(self, tmp_path: Path):
        path = self.written(tmp_path, "rxnorm,617310,atc,C10AA05\n")
        after = translate(("rxnorm", "617310"), ("rxnorm", "1191"), code_map=path, own_record=True)
        assert after == [("atc", "C10AA05"), ("rxnorm", "1191")]

    def test_wrong_and_missing_targets_map_nothing_and_wrong_ones_are_said(self, tmp_path: Path):
        rows = "ndc,00093101601,atc,\nndc,00093101602,atc,metformin\n,,,\n\nndc,00093101603,atc,A10BA02\n"
        path = self.written(tmp_path, rows)
        translator = Translator(ReadingSettings(code_map=path))
        after = translator.apply(columns([[("ndc", f"0009310160{i}", "2020-01-01") for i in (1, 2, 3)]]))
        assert coded(after) == [[("atc", "A10BA02", "2020-01-01")]]
        assert translator.warnings() == [
            f"{path}: rows whose target is no code of its system are left out: 1, the first 'metformin' in line 3"
        ]

    @pytest.mark.parametrize(
        ("header", "rows", "message"),
        [
            ("source_system,source_code,target_code\n", "", "has no column target_system, expected source_system, "),
            ("", "", "has no column source_system"),
            (
                MAP_HEADER,
                "gpi,1,atc,A10BA02\n",
                "line 2: source_system: unknown code system 'gpi', expected one of atc",
            ),
            (MAP_HEADER, "ndc,1,\n", "line 2: has 3 fields, expected 4 as in its header"),
            (MAP_HEADER, "ndc,1,who,A10BA02\n", "line 2: target_system: unknown code system 'who'"),
            (MAP_HEADER, 'ndc,1,"atc,A10BA02\n', "cannot be read"),
        ],
    )
    def test_a_wrong_map_is_refused(self, tmp_path: Path, header: str, rows: str, message: str):
        path = self.written(tmp_path, rows, header)
        with pytest.raises(InputError) as error:
            read_code_map(path)
        assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_damaged_or_missing_map_is_named(self, tmp_path: Path):
        whole = self.written(tmp_path, "ndc,00093101601,atc,A10BA02\n" * 500, name="map.csv.gz").read_bytes()
        (tmp_path / "cut.csv.gz").write_bytes(whole[:-20])
        (tmp_path / "latin.csv").write_bytes(MAP_HEADER.encode() + b"ndc,\xfc,atc,A10BA02\n")
        for name in ("cut.csv.gz", "latin.csv", "missing.csv"):
            with pytest.raises(InputError, match=name):
                read_code_map(tmp_path / name)


# A drug of one ingredient (1, 2), aspirin with two uses (3), a combination (4), an NDC and a deprecated RxNorm code of
# the first, an ATC group, and a diagnosis.
CONCEPTS = [
    (101, "metformin", "Drug", "ATC", "ATC 5th", "C", "A10BA02"),
    (102, 'aspirin "low" dose', "Drug", "ATC", "ATC 5th", "C", "B01AC06"),
    (103, "aspirin", "Drug", "ATC", "ATC 5th", "C", "N02BA01"),
    (104, "sitagliptin and metformin", "Drug", "ATC", "ATC 5th", "C", "A10BD07"),
    (105, "biguanides", "Drug", "ATC", "ATC 4th", "C", "A10BA"),
    (1, "metformin", "Drug", "RxNorm", "Ingredient", "S", "6809"),
    (2, 'metformin 500 MG "ER"', "Drug", "RxNorm", "Clinical Drug", "S", "860975"),
    (3, "aspirin 81 MG", "Drug", "RxNorm", "Clinical Drug", "S", "243670"),
    (4, "metformin / sitagliptin", "Drug", "RxNorm", "Clinical Drug", "S", "861819"),
    (5, "metformin pack", "Drug", "NDC", "11-digit NDC", "", "00093104801"),
    (6, "old metformin", "Drug", "RxNorm", "Clinical Drug", "", "111"),
    (7, "moved away", "Drug", "RxNorm", "Clinical Drug", "", "112"),
    (8, "no class", "Drug", "RxNorm", "Clinical Drug", "S", "113"),
    (9, "diabetes", "Condition", "SNOMED", "Disorder", "S", "73211009"),
    (10, "diabetes", "Condition", "ICD10CM", "4-char billing code", "", "E11.9"),
]
RELATIONSHIPS = [
    (5, 2, "Maps to", ""),
    (6, 2, "Maps to", ""),
    (7, 3, "Maps to", "D"),
    (8, 3, "Has form", ""),
    (2, 2, "Maps to", ""),
    (10, 9, "Maps to", ""),
    (9, 10, "Mapped from", ""),
]
ANCESTORS = [(101, 1), (101, 2), (105, 2), (103, 3), (102, 3), (101, 4), (104, 4), (104, 4), (1, 2), (101, 101), (9, 9)]
DRUG_CODES = {
    ("rxnorm", "6809"): ("A10BA02",),
    ("rxnorm", "860975"): ("A10BA02",),
    ("rxnorm", "243670"): ("B01AC06", "N02BA01"),
    ("rxnorm", "861819"): ("A10BA02", "A10BD07"),
    ("rxnorm", "111"): ("A10BA02",),
    ("ndc", "00093104801"): ("A10BA02",),
    ("ndc", "0093104801"): ("A10BA02",),
}


def athena(
    folder: Path, separator: str = "\t", names: Mapping[str, str] | None = None, drop: Sequence[int] = ()
) -> Path:
    """Write a download of vocabularies, without the concepts of the given places."""

    def write(table: str, header: str, rows: Sequence[Sequence[Any]]) -> None:
        def cell(value: Any) -> str:
            text = str(value)
            return '"' + text.replace('"', '""') + '"' if separator == "," and '"' in text else text

        lines = [separator.join(header.split()), *(separator.join(map(cell, row)) for row in rows)]
        name = (names or {}).get(table, f"{table}.csv")
        content = ("\n".join(lines) + "\n").encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    folder.mkdir(exist_ok=True)
    kept = [row for i, row in enumerate(CONCEPTS) if i not in drop]
    write(
        "CONCEPT",
        "concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept concept_code "
        "valid_start_date valid_end_date invalid_reason",
        [(*row, "19700101", "20991231", "") for row in kept],
    )
    write(
        "CONCEPT_RELATIONSHIP",
        "concept_id_1 concept_id_2 relationship_id valid_start_date valid_end_date invalid_reason",
        [(*row[:3], "19700101", "20991231", row[3]) for row in RELATIONSHIPS],
    )
    write(
        "CONCEPT_ANCESTOR",
        "ancestor_concept_id descendant_concept_id min_levels_of_separation max_levels_of_separation",
        [(*row, 1, 1) for row in ANCESTORS],
    )
    return folder


class TestAthena:
    @pytest.mark.parametrize(
        ("separator", "names"),
        [
            ("\t", {}),
            (",", {}),
            ("\t", {"CONCEPT": "concept.csv", "CONCEPT_ANCESTOR": "Concept_Ancestor.CSV"}),
            ("\t", {"CONCEPT": "CONCEPT.csv.gz", "CONCEPT_RELATIONSHIP": "concept_relationship.csv.gz"}),
        ],
    )
    def test_drugs_of_any_system_have_the_codes_above_them(self, tmp_path: Path, separator: str, names: dict[str, str]):
        vocabularies = Vocabularies(athena(tmp_path / "it's [here]", separator, names))
        others = [("rxnorm", "112"), ("rxnorm", "113"), ("rxnorm", "9"), ("snomedct", "73211009"), ("icd10cm", "E11.9")]
        assert vocabularies.atc([*DRUG_CODES, *others]) == DRUG_CODES
        assert vocabularies.atc(DRUG_CODES) == DRUG_CODES
        assert vocabularies.atc([]) == {}

    @pytest.mark.parametrize("on_multiple", ["first", "all", "drop"])
    def test_a_drug_keeps_all_its_codes_or_none(self, tmp_path: Path, on_multiple: str):
        events = [("rxnorm", "243670"), ("rxnorm", "860975"), ("ndc", "0093-1048-01"), ("rxnorm", "861819")]
        after = translate(*events, athena=athena(tmp_path), on_multiple=on_multiple)
        several = on_multiple != "drop"
        expected = ["B01AC06", "N02BA01"] * several + ["A10BA02", "A10BA02"] + ["A10BA02", "A10BD07"] * several
        assert after == [("atc", code) for code in expected]

    def test_with_a_map_before_it(self, tmp_path: Path):
        path = tmp_path / "map.csv"
        path.write_text(
            MAP_HEADER + "ndc,55555666677,rxnorm,860975\nrxnorm,6809,atc,A10BA01\nndc,55555666678,rxnorm,9\n"
        )
        events = [("ndc", "55555666677"), ("rxnorm", "6809"), ("ndc", "55555666678"), ("ndc", "00093104801")]
        after = translate(*events, athena=athena(tmp_path / "athena"), code_map=path, atc_level=4)
        assert after == [("atc", "A10BA"), ("atc", "A10BA"), ("rxnorm", "9"), ("atc", "A10BA")]

    def test_diagnoses_are_not_mapped_backward(self, tmp_path: Path):
        translator = Translator(ReadingSettings(athena=athena(tmp_path)))
        translator.apply(columns([[("snomedct", "73211009", "2020-01-01")]]))
        assert translator.summary.unmapped == {("snomedct", "73211009"): 1}

    def test_a_kept_system_is_not_mapped(self, tmp_path: Path):
        assert translate(("rxnorm", "6809"), athena=athena(tmp_path), keep_systems="rxnorm") == [("rxnorm", "6809")]

    def test_our_own_record_is_mapped_as_far_as_it_can(self, tmp_path: Path):
        after = translate(("rxnorm", "6809"), ("rxnorm", "113"), athena=athena(tmp_path), own_record=True)
        assert after == [("atc", "A10BA02"), ("rxnorm", "113")]

    def test_vocabularies_without_atc_say_what_to_download(self, tmp_path: Path):
        folder = athena(tmp_path, drop=range(4))
        with pytest.raises(InputError) as error:
            translate(("rxnorm", "6809"), athena=folder)
        assert str(error.value).startswith(f"{folder}: CONCEPT has no concepts of ATC's fifth level; download")
        assert "with ATC and RxNorm ticked" in str(error.value)

    def test_a_folder_without_them_is_refused_at_once(self, tmp_path: Path):
        with pytest.raises(InputError, match="folder not found, expected an unpacked download"):
            Translator(ReadingSettings(athena=tmp_path / "nowhere"))
        (athena(tmp_path) / "CONCEPT_ANCESTOR.csv").unlink()
        (tmp_path / "CONCEPT.csv").rename(tmp_path / "concepts.csv")
        with pytest.raises(InputError, match=r"has no CONCEPT.csv and no CONCEPT_ANCESTOR.csv, expected an unpacked"):
            Translator(ReadingSettings(athena=tmp_path))

    def test_a_table_that_stands_there_twice_is_refused(self, tmp_path: Path):
        athena(tmp_path)
        (tmp_path / "CONCEPT.csv.gz").touch()
        with pytest.raises(InputError, match=r"has CONCEPT.csv and CONCEPT.csv.gz, expected one"):
            Vocabularies(tmp_path)

    @pytest.mark.parametrize(
        ("table", "content"),
        [
            ("CONCEPT_ANCESTOR", b"ancestor_concept_id\tdescendant_concept_id\n101\tx\n"),
            ("CONCEPT_ANCESTOR", b"ancestor\tdescendant\n101\t1\n"),
            ("CONCEPT_RELATIONSHIP", b"concept_id_1\tconcept_id_2\n1\n"),
            ("CONCEPT", b""),
            ("CONCEPT", b"\xff\xfe\x00"),
        ],
    )
    def test_a_damaged_table_is_one_line(self, tmp_path: Path, table: str, content: bytes):
        (athena(tmp_path) / f"{table}.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read|has no header") as error:
            translate(("rxnorm", "6809"), athena=tmp_path)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


ANY_CODES = st.sampled_from(
    [
        ("icd10cm", "E11.9"),
        ("icd10cm", "e119"),
        ("icd10cm", "I10.-"),
        ("icd10cm", "nothing"),
        ("atc", "C10AA05"),
        ("icd9cm", "25000"),
        ("icd9cm", "249.41"),
        ("icd9cm", "754.35"),
        ("icd9cm", "365.70"),
        ("rxnorm", "6809"),
        ("snomedct", "73211009"),
    ]
)
DAYS = st.dates(date(1990, 1, 1), date(2030, 1, 1)).map(date.isoformat)
PATIENTS = st.lists(st.lists(st.tuples(ANY_CODES, DAYS).map(lambda e: (*e[0], e[1])), max_size=6), max_size=6)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "on_multiple": st.sampled_from(["first", "all", "drop"]),
        "keep_systems": st.sampled_from(["rxnorm", "icd9cm,snomedct"]),
        "icd_level": st.sampled_from(["full", "category"]),
        "atc_level": st.sampled_from([3, 4, 5]),
        "diagnosis_system": st.sampled_from(["icd9cm", "by-date"]),
    },
)


class TestProperties:
    @settings(deadline=None)
    @given(PATIENTS, PATIENTS, OPTIONS, st.booleans())
    def test_two_chunks_give_what_their_union_gives(
        self, one: Any, two: Any, options: dict[str, Any], own_record: bool
    ):
        together, apart = (Translator(ReadingSettings(**options), own_record) for _ in range(2))
        assert coded(together.apply(columns(one + two))) == [
            patient for part in (one, two) for patient in coded(apart.apply(columns(part)))
        ]
        assert together.summary == apart.summary

    @settings(deadline=None)
    @given(PATIENTS, OPTIONS, st.booleans())
    def test_every_event_is_counted_and_translated_by_itself_in_order(
        self, patients: Any, options: dict[str, Any], own_record: bool
    ):
        translator = Translator(ReadingSettings(**options), own_record)
        after = translator.apply(columns(patients))
        alone = Translator(ReadingSettings(**options), own_record)
        expected = [
            [target for event in events for target in coded(alone.apply(columns([[event]])))[0]] for events in patients
        ]
        assert coded(after) == expected
        counts = translator.summary.events
        assert counts.total() == sum(map(len, patients))
        assert translator.summary.unmapped.total() == sum(
            count for (_, outcome, _), count in counts.items() if outcome == LEFT_OUT
        )
        assert len(set(after.events.table)) == len(after.events.table)

    @settings(deadline=None)
    @given(PATIENTS, OPTIONS)
    def test_translating_twice_changes_nothing(self, patients: Any, options: dict[str, Any]):
        once = Translator(ReadingSettings(**options)).apply(columns(patients))
        again = Translator(ReadingSettings(**options))
        assert again.apply(once) is once
        assert {outcome for _, outcome, _ in again.summary.events} <= {"kept", UNKNOWN}


def test_summaries_of_parts_add_up():
    first, second = TranslationSummary(), TranslationSummary()
    for summary, code in ((first, "1"), (second, "2"), (second, "1")):
        summary.events["ndc", LEFT_OUT, 2020] += 1
        summary.unmapped["ndc", code] += 1
        summary.read_as_icd9[code] += 1
    add(first, second)
    assert first.events == {("ndc", LEFT_OUT, 2020): 3}
    assert first.unmapped == {("ndc", "1"): 2, ("ndc", "2"): 1} and first.read_as_icd9 == {"1": 2, "2": 1}


def test_years_far_apart():
    events = [("icd10cm", "I10", day) for day in ("0001-01-01", "1969-12-31", "1970-01-01", "9999-12-31")]
    translator = Translator(ReadingSettings(), own_record=True)
    translator.apply(columns([events]))
    assert translator.summary.events == {("icd10cm", "kept", year): 1 for year in (1, 1969, 1970, 9999)}
