"""Patients as FHIR R4 in the form of a bulk export: a file per type of resource, one resource on each line.

    Patient.ndjson              who they are, with the day of death
    Coverage.ndjson             when each was observed, where that is known
    Encounter.ndjson            the stay that stands for what is known of prolonged ones (`table_file.stays`)
    Condition.ndjson, MedicationRequest.ndjson, Procedure.ndjson, Observation.ndjson    their events, by what these are
                                called (`WRITTEN_AS`); observations with value and interpretation

Of static columns beside sex and state, race and ethnicity have a place (US Core). Events of a patient keep their order
within each type.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import InputError, shown
from exmed_bert.data.export.base import ExportCounts
from exmed_bert.data.export.provenance import BESIDE, check_export_folder, write_provenance
from exmed_bert.data.export.table_file import further_static, stays
from exmed_bert.data.measured import FLAGS, NO_FLAG, shortest
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY, PatientColumns
from exmed_bert.data.readers.fhir_resources import (
    CONDITION,
    COVERAGE,
    ENCOUNTER,
    OBSERVATION,
    PATIENT,
    PROCEDURE,
    REQUEST,
    WRITTEN_AS,
)
from exmed_bert.data.static_columns import SEX, STATE

check_replaceable = check_export_folder

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TERMS = "http://terminology.hl7.org/CodeSystem/"
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_IN_US_CORE = ("race", "ethnicity")
_CONFIRMED = {"coding": [{"system": f"{_TERMS}condition-ver-status", "code": "confirmed"}]}
_INPATIENT = {"system": f"{_TERMS}v3-ActCode", "code": "IMP"}
_FLAGS = [{"coding": [{"system": f"{_TERMS}v3-ObservationInterpretation", "code": flag}]} for flag in FLAGS]


def write(folder: Path, name: str, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
    """Write patients as FHIR; see `base.Exporter`.

    Raises:
        InputError: an id of a patient has no place in FHIR.
    """
    with _Files(folder) as files:
        patients = events = first = 0
        codes: set[CodeKey] = set()
        for chunk in chunks:
            references = _write_people(files, chunk)
            events += _write_events(files, chunk, references, first, codes)
            patients += len(chunk)
            first += len(chunk.events.codes)
    write_provenance(folder, origin, BESIDE)
    return ExportCounts(patients, events, files.rows, len(codes), len(files))


class _Files:
    """The files, each opened with its first resource."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._folder = folder
        self._open: dict[str, IO[bytes]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._open.values():
            file.close()

    def add(self, kind: str, resource: dict[str, Any]) -> None:
        """Write a resource."""
        if kind not in self._open:
            self._open[kind] = open(self._folder / f"{kind}.ndjson", "wb")  # noqa: SIM115  # closed in __exit__
        line = orjson.dumps({"resourceType": kind} | resource, option=orjson.OPT_APPEND_NEWLINE)
        self._open[kind].write(line)
        self.rows += 1


def _write_people(files: _Files, patients: PatientColumns) -> list[dict[str, str]]:
    """Write the patients, what observed them and their stays; return a reference to each."""
    ids = [str(patient_id) for patient_id in patients.patient_ids]
    if wrong := next((i for i in ids if not _ID.fullmatch(i)), None):
        raise InputError(
            f"patient_id {shown(wrong)}: is no id of FHIR, expected at most 64 letters, digits, hyphens and dots"
        )
    references = [{"reference": f"Patient/{i}"} for i in ids]
    born, died = _days(patients.period(BIRTH_DATE)), _days(patients.period("death_date"))
    starts, ends = (_days(patients.period(f"observation_{end}")) for end in ("start", "end"))
    years, static = patients.birth_years.tolist(), further_static(patients)
    sexes = dict(zip(patients.static[SEX.name], SEX.ids(patients.static[SEX.name]).tolist(), strict=True))
    genders = {sex: str(SEX.value(token)).lower() if SEX.value(token) else None for sex, token in sexes.items()}
    for i, own in enumerate(ids):
        patient: dict[str, Any] = {"id": own}
        texts = {column: static[column][i] for column in _IN_US_CORE if column in static}
        extensions = [
            {"url": _US_CORE + column, "extension": [{"url": "text", "valueString": text}]}
            for column, text in texts.items()
            if text and text.strip()
        ]
        if extensions:
            patient["extension"] = extensions
        if gender := genders[patients.static[SEX.name][i]]:
            patient["gender"] = gender
        patient["birthDate"] = born[i] or f"{years[i]:04d}"
        if died[i]:
            patient["deceasedDateTime"] = died[i]
        if state := patients.static[STATE.name][i]:
            patient["address"] = [{"use": "home", "state": state}]
        files.add(PATIENT, patient)
        if starts[i] or ends[i]:
            period = {key: day for key, day in (("start", starts[i]), ("end", ends[i])) if day}
            payor = [{"display": "unknown"}]
            files.add(
                COVERAGE,
                {"id": own, "status": "active", "beneficiary": references[i], "period": period, "payor": payor},
            )
    who, first, last = stays(patients)
    for i, start, end in zip(who.tolist(), _days(first), _days(last), strict=True):
        period = {"start": str(start), "end": str(end)}
        files.add(
            ENCOUNTER,
            {"id": ids[i], "status": "finished", "class": _INPATIENT, "subject": references[i], "period": period},
        )
    return references


def _write_events(
    files: _Files, patients: PatientColumns, references: list[dict[str, str]], first: int, codes: set[CodeKey]
) -> int:
    """Write the events that have a place, and return how many; ``first`` is the number of the first event."""
    events, measured = patients.events, patients.events.measured
    coded = [_coded(key) for key in events.table]
    days = dict(zip(np.unique(events.days).tolist(), _days(np.unique(events.days)), strict=True))
    rows = zip(events.patients().tolist(), events.codes.tolist(), events.days.tolist(), strict=True)
    before = files.rows
    for place, (patient, code, day) in enumerate(rows):
        kind, concept = coded[code]
        if not kind:
            continue
        event = {"id": str(first + place), "subject": references[patient], "concept": concept, "day": days[day]}
        if kind == OBSERVATION and measured is not None:
            if not np.isnan(measured.values[place]):
                event["value"] = shortest(measured.values[place])
            if measured.flags[place] != NO_FLAG:
                event["flag"] = _FLAGS[measured.flags[place]]
        files.add(kind, _RESOURCES[kind](event))
    used = np.flatnonzero(np.bincount(events.codes, minlength=len(events.table)))
    codes.update(events.table[i] for i in used.tolist() if coded[i][0])
    return files.rows - before


def _coded(key: CodeKey) -> tuple[str, dict[str, Any]]:
    """Return the type of the resources of a code, and the concept that it is."""
    name, code = key
    system = code_system(name)
    kind = WRITTEN_AS.get(system.events, CONDITION)
    return kind, {"coding": [{"system": system.url, "code": code.strip() or "unknown"}]}


def _condition(event: dict[str, Any]) -> dict[str, Any]:
    own = {"id": event["id"], "verificationStatus": _CONFIRMED, "code": event["concept"]}
    return own | {"subject": event["subject"], "onsetDateTime": event["day"]}


def _request(event: dict[str, Any]) -> dict[str, Any]:
    own = {"id": event["id"], "status": "completed", "intent": "order", "medicationCodeableConcept": event["concept"]}
    return own | {"subject": event["subject"], "authoredOn": event["day"]}


def _procedure(event: dict[str, Any]) -> dict[str, Any]:
    own = {"id": event["id"], "status": "completed", "code": event["concept"]}
    return own | {"subject": event["subject"], "performedDateTime": event["day"]}


def _observation(event: dict[str, Any]) -> dict[str, Any]:
    own = {"id": event["id"], "status": "final", "code": event["concept"], "subject": event["subject"]}
    own["effectiveDateTime"] = event["day"]
    if "value" in event:
        own["valueQuantity"] = {"value": event["value"]}
    if "flag" in event:
        own["interpretation"] = [event["flag"]]
    return own


_RESOURCES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    CONDITION: _condition,
    REQUEST: _request,
    PROCEDURE: _procedure,
    OBSERVATION: _observation,
}


def _days(days: np.ndarray) -> list[str | None]:
    """Return days since 1970-01-01 as YYYY-MM-DD, None for `NO_DAY`."""
    known = days != NO_DAY
    written = np.where(known, days, 0).astype("datetime64[D]").astype(str)
    return [day if is_known else None for day, is_known in zip(written.tolist(), known.tolist(), strict=True)]
