"""What is read of each type of FHIR resource, and the SQL that makes rows of it.

The rows of events have ``patient_id``, ``day`` (days since 1970-01-01), ``partial`` (whether the date is a year or a
month only), ``encounter`` (whose date is taken where there is no other), ``medication`` (whose code is), ``system``,
``code`` and ``reason``: why the resource is no event, else NULL.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exmed_bert.codes import code_systems
from exmed_bert.data.database import name, quoted

if TYPE_CHECKING:
    import duckdb

PATIENT, ENCOUNTER, MEDICATION, CONDITION = "Patient", "Encounter", "Medication", "Condition"
REQUEST, STATEMENT = "MedicationRequest", "MedicationStatement"
DISPENSE, ADMINISTRATION = "MedicationDispense", "MedicationAdministration"
PROCEDURE, OBSERVATION, COVERAGE = "Procedure", "Observation", "Coverage"
EVENTS = (CONDITION, REQUEST, STATEMENT, DISPENSE, ADMINISTRATION)
FURTHER_EVENTS = {PROCEDURE: "procedures", OBSERVATION: "measurements"}  # which are read where these are wanted
# The type as which an export of ours writes events, by what they are called; others are conditions.
# Types of visits are not written: an encounter is more than its type.
WRITTEN_AS = {"drugs": REQUEST, "visits": ""} | {events: kind for kind, events in FURTHER_EVENTS.items()}

# Why a resource is no event, beside the reasons that every format has.
NO_RESOURCE, OTHER_TYPE, NO_ID = "no resource", "of another type", "without an id"
NOT_TO_BE_PERFORMED, NO_INTENT = "not to be performed", "of no known intent"
NO_MEDICATION = "of a medication that is missing"

INTENTS = (
    *("proposal", "plan", "order", "original-order", "reflex-order", "filler-order", "instance-order"),
    "option",
)

# DuckDB types of the fields that are read; JSON where the form may differ and only what it holds matters.
_TEXT = "VARCHAR"
_CODES = 'STRUCT(coding STRUCT("system" VARCHAR, code VARCHAR)[])'
_REFERENCE = "STRUCT(reference VARCHAR)"
_PERIOD = 'STRUCT("start" VARCHAR, "end" VARCHAR)'
_EXTENSION = "url VARCHAR, valueString VARCHAR, valueCoding STRUCT(display VARCHAR)"
_OF_EVENT = {"resourceType": _TEXT, "subject": _REFERENCE, "encounter": _REFERENCE, "context": _REFERENCE}
_OF_DRUG = _OF_EVENT | {
    "status": _TEXT,
    "medicationCodeableConcept": _CODES,
    "medicationReference": _REFERENCE,
    "medication": f"STRUCT(concept {_CODES}, reference {_REFERENCE})",  # both of them in R5
    "contained": f"STRUCT(id VARCHAR, code {_CODES})[]",
}
FIELDS: dict[str, dict[str, str]] = {
    PATIENT: {
        "resourceType": _TEXT,
        "id": _TEXT,
        "birthDate": _TEXT,
        "gender": _TEXT,
        "address": 'STRUCT("use" VARCHAR, "state" VARCHAR)[]',
        "deceasedDateTime": _TEXT,
        "extension": f'STRUCT(url VARCHAR, "extension" STRUCT({_EXTENSION})[])[]',
    },
    ENCOUNTER: {
        "resourceType": _TEXT,
        "id": _TEXT,
        "status": _TEXT,
        "class": "JSON",
        "subject": _REFERENCE,
        "period": _PERIOD,
        "actualPeriod": _PERIOD,  # R5's name of it
    },
    MEDICATION: {"resourceType": _TEXT, "id": _TEXT, "code": _CODES},
    CONDITION: _OF_EVENT
    | {
        "verificationStatus": "JSON",
        "code": _CODES,
        "onsetDateTime": _TEXT,
        "onsetPeriod": _PERIOD,
        "recordedDate": _TEXT,
    },
    REQUEST: _OF_DRUG | {"intent": _TEXT, "doNotPerform": "BOOLEAN", "authoredOn": _TEXT},
    STATEMENT: _OF_DRUG | {"effectiveDateTime": _TEXT, "effectivePeriod": _PERIOD, "dateAsserted": _TEXT},
    DISPENSE: _OF_DRUG | {"whenHandedOver": _TEXT, "whenPrepared": _TEXT},
    ADMINISTRATION: _OF_DRUG | {"effectiveDateTime": _TEXT, "effectivePeriod": _PERIOD},
}
# Types that are read on some conditions only: those of `FURTHER_EVENTS`, and coverage in exports of ours.
FURTHER: dict[str, dict[str, str]] = {
    PROCEDURE: _OF_EVENT
    | {
        "status": _TEXT,
        "code": _CODES,
        "performedDateTime": _TEXT,
        "performedPeriod": _PERIOD,
        "occurrenceDateTime": _TEXT,  # R5's names of it
        "occurrencePeriod": _PERIOD,
    },
    OBSERVATION: _OF_EVENT
    | {
        "status": _TEXT,
        "code": _CODES,
        "effectiveDateTime": _TEXT,
        "effectivePeriod": _PERIOD,
        "effectiveInstant": _TEXT,
        "issued": _TEXT,
        "valueQuantity": "STRUCT(value DOUBLE)",
        "interpretation": f"{_CODES}[]",
        "referenceRange": "STRUCT(low STRUCT(value DOUBLE), high STRUCT(value DOUBLE))[]",
    },
    COVERAGE: {"resourceType": _TEXT, "status": _TEXT, "beneficiary": _REFERENCE, "period": _PERIOD},
}

# Where the date of an event stands, the best first.
_EFFECTIVE = ("effectiveDateTime", 'effectivePeriod."start"')
_DATES: dict[str, tuple[str, ...]] = {
    CONDITION: ("onsetDateTime", 'onsetPeriod."start"', "recordedDate"),
    REQUEST: ("authoredOn",),
    STATEMENT: (*_EFFECTIVE, "dateAsserted"),
    DISPENSE: ("whenHandedOver", "whenPrepared"),
    ADMINISTRATION: _EFFECTIVE,
    PROCEDURE: ("performedDateTime", 'performedPeriod."start"', "occurrenceDateTime", 'occurrencePeriod."start"'),
    OBSERVATION: (*_EFFECTIVE, "effectiveInstant", "issued"),
}
# Statuses of what did not happen, or not yet.
_NOT_SO: dict[str, tuple[str, ...]] = {
    CONDITION: ("entered-in-error", "refuted"),
    REQUEST: ("entered-in-error", "cancelled", "draft"),
    STATEMENT: ("entered-in-error", "not-taken", "intended"),
    DISPENSE: ("entered-in-error", "cancelled", "declined", "preparation"),
    ADMINISTRATION: ("entered-in-error", "not-done"),
    ENCOUNTER: ("entered-in-error", "cancelled", "planned"),
    PROCEDURE: ("entered-in-error", "not-done", "preparation"),
    OBSERVATION: ("entered-in-error", "cancelled", "registered"),
    COVERAGE: ("entered-in-error", "cancelled", "draft"),
}
_INPATIENT = ("IMP", "ACUTE", "NONAC")  # what HL7 counts as inpatient encounters

# Of several codings the first of these systems is taken, else any that is known.
_OF_CONDITIONS = ("icd10cm", "icd9cm", "snomedct")
_OF_DRUGS = ("atc", "rxnorm", "ndc")
_PREFERRED = {
    CONDITION: _OF_CONDITIONS,
    PROCEDURE: ("icd10pcs", "cpt", "hcpcs", "snomedct"),
    OBSERVATION: ("loinc", "snomedct"),
}
# Names of code systems beside those that are registered.
_OID = "urn:oid:2.16.840.1.113883.6."
_MIMIC = "http://mimic.mit.edu/fhir/mimic/codesystem/mimic-"
_FURTHER_NAMES = {
    _OID + "90": "icd10cm",
    _OID + "103": "icd9cm",
    _OID + "96": "snomedct",
    _OID + "73": "atc",
    _OID + "88": "rxnorm",
    _OID + "69": "ndc",
    _OID + "4": "icd10pcs",
    _OID + "12": "cpt",
    _OID + "285": "hcpcs",
    _OID + "1": "loinc",
    "http://hl7.org/fhir/sid/icd-10-pcs": "icd10pcs",
    "http://hl7.org/fhir/sid/icd-9-cm/diagnosis": "icd9cm",
    _MIMIC + "diagnosis-icd10": "icd10cm",
    _MIMIC + "diagnosis-icd9": "icd9cm",
    _MIMIC + "medication-ndc": "ndc",
}
_CODE = "system_name(chosen.\"system\") AS system, nullif(trim(chosen.code), '') AS code"
# What the laboratory says of a value counts before its range.
_VALUE, _LOW, _HIGH = "valueQuantity.value", "referenceRange[1].low.value", "referenceRange[1].high.value"
_SAID = (  # of HL7's interpretations; others, such as NS for not susceptible, say nothing of the range
    "CASE WHEN upper(interpretation[1].coding[1].code) IN ('L', 'LL', 'LU', 'LX', 'N', 'H', 'HH', 'HU', 'HX') "
    "THEN upper(left(interpretation[1].coding[1].code, 1)) END"
)
_RESULT = (
    f"{_VALUE}::FLOAT AS value, CASE WHEN {_SAID} IS NOT NULL THEN {_SAID} WHEN {_VALUE} < {_LOW} THEN 'L' "
    f"WHEN {_VALUE} > {_HIGH} THEN 'H' WHEN {_VALUE} IS NOT NULL AND ({_LOW} IS NOT NULL OR {_HIGH} IS NOT NULL) "
    "THEN 'N' END AS flag, "
)
_EXTENSIONS = ("race", "ethnicity")  # static columns for which US Core has extensions


def add_macros(db: "duckdb.DuckDBPyConnection") -> None:
    """Define dates, references and code systems of FHIR."""
    # A date may be a year or a month only; of a time, the first ten characters are the local date.
    db.execute(
        "CREATE MACRO first_day(t) AS day_of_date(TRY_CAST(CASE length(t) WHEN 4 THEN t || '-01-01' "
        "WHEN 7 THEN t || '-01' ELSE substr(t, 1, 10) END AS DATE))"
    )
    db.execute(
        "CREATE MACRO last_day_of(t) AS CASE length(t) WHEN 4 THEN first_day(t || '-12-31') "
        "WHEN 7 THEN day_of_date(last_day(TRY_CAST(t || '-01' AS DATE))) ELSE first_day(t) END"
    )
    known = {system.name: sorted(system.names) for system in code_systems()}
    for further, system in _FURTHER_NAMES.items():
        known[system].append(further.lower())
    names = (f"WHEN lower(s) IN ({', '.join(map(quoted, of))}) THEN '{system}'" for system, of in known.items())
    db.execute(f"CREATE MACRO system_name(s) AS CASE {' '.join(names)} ELSE s END")
    # Patient/1, https://host/fhir/Patient/1, Patient/1/_history/2, urn:uuid:1; NULL for resources of other types.
    # Nearly all are of the first form, for which no regular expression is needed.
    db.execute(
        "CREATE MACRO id_of(r, kind) AS CASE "
        "WHEN starts_with(r, kind || '/') AND NOT regexp_matches(substr(r, length(kind) + 2), '[/?#|]') "
        "THEN substr(r, length(kind) + 2) "
        "ELSE nullif(regexp_extract(r, '^(?:(?:.*/)?' || kind || '/|urn:(?:uuid|oid):)([^/?#|]+)', 1), '') END"
    )


def patients(resources: str, static: Sequence[str]) -> str:
    """Return the SQL of patients.

    Args:
        resources: SQL of the resources.
        static: names of the static columns.
    """
    columns = [
        "nullif(trim(id), '') AS patient_id",
        "TRY_CAST(substr(birthDate, 1, 4) AS INTEGER) AS birth_year",
        "first_day(birthDate) AS birth_date",
        "gender AS sex",
        'coalesce(list_filter(address, lambda a: a."use" = \'home\' AND a."state" <> \'\')[1]."state", '
        'list_filter(address, lambda a: a."use" IS DISTINCT FROM \'old\' AND a."state" <> \'\')[1]."state", '
        'list_filter(address, lambda a: a."state" <> \'\')[1]."state") AS state',
        # Nobody's events come after the death: of a year or a month, its last day.
        "last_day_of(deceasedDateTime) AS death_date",
    ]
    for column in (column for column in static if column in _EXTENSIONS):
        url = quoted(f"us-core-{column}")
        parts = f'list_filter("extension", lambda e: ends_with(e.url, {url}))[1]."extension"'
        columns.append(
            f"coalesce(list_filter({parts}, lambda p: p.url = 'ombCategory')[1].valueCoding.display, "
            f"list_filter({parts}, lambda p: p.url = 'text')[1].valueString) AS {name(column)}"
        )
    reason = _case([*_whether_resource(PATIENT), ("nullif(trim(id), '') IS NULL", NO_ID)])
    return f"SELECT {', '.join(columns)}, {reason} AS reason FROM ({resources})"


def encounters(resources: str) -> str:
    """Return the SQL of encounters: ``id``, ``day`` of the start, and what `Tables.stays` has."""
    timed = 'length(p."start") > 10 AND length(p."end") > 10'
    # Where both times are known so are their offsets from UTC: stays across a change of the clock are not longer.
    moment = "coalesce(TRY_CAST(p.{0} AS TIMESTAMPTZ)::TIMESTAMP, time_of_text(p.{0}))"
    date = "TRY_CAST(CASE WHEN length(p.{0}) >= 10 THEN substr(p.{0}, 1, 10) END AS TIMESTAMP)"
    ends = ", ".join(
        f"CASE WHEN {timed} THEN {moment.format(end)} ELSE {date.format(end)} END AS {column}"
        for end, column in (('"start"', "started"), ('"end"', "ended"))
    )
    inpatient = " OR ".join(f'contains("class"::VARCHAR, \'"{code}"\')' for code in _INPATIENT)
    visit = "coalesce(\"class\"->>'$.code', \"class\"->>'$[0].coding[0].code') AS visit"  # the latter is R5's
    reason = _case([*_whether_resource(ENCOUNTER), *_whether_so(ENCOUNTER, "status")])
    return (
        f"SELECT id, id_of(subject.reference, '{PATIENT}') AS patient_id, first_day(p.\"start\") AS day, {ends}, "
        f"coalesce({timed}, false) AS timed, coalesce({inpatient}, false) AS inpatient, {visit}, {reason} AS reason "
        f"FROM (SELECT *, coalesce(period, actualPeriod) AS p FROM ({resources}))"
    )


def coverages(resources: str) -> str:
    """Return the SQL of coverages: whose each is, and the days from which and until which it observes them."""
    reason = _case([*_whether_resource(COVERAGE), *_whether_so(COVERAGE, "status")])
    return (
        f"SELECT id_of(beneficiary.reference, '{PATIENT}') AS patient_id, "
        'first_day(period."start") AS observation_start, last_day_of(period."end") AS observation_end, '
        f"{reason} AS reason FROM ({resources})"
    )


def medications(resources: str) -> str:
    """Return the SQL of medications: ``id``, ``system``, ``code``."""
    reason = _case([*_whether_resource(MEDICATION), ("nullif(trim(id), '') IS NULL", NO_ID)])
    return (
        f"SELECT nullif(trim(id), '') AS id, {_CODE}, {reason} AS reason "
        f"FROM (SELECT *, {_chosen('code.coding', _OF_DRUGS)} AS chosen FROM ({resources}))"
    )


def events(kind: str, resources: str, recorded_first: bool, intents: Sequence[str] | None) -> str:
    """Return the SQL of the events of a type.

    Args:
        kind: the type.
        resources: SQL of the resources.
        recorded_first: whether a condition has the date of its record, if there is one.
        intents: those of requests that are read, None for all.
    """
    dates = _DATES[kind]
    if recorded_first and kind == CONDITION:
        dates = (dates[-1], *dates[:-1])
    written = " ".join(f"WHEN first_day({date}) IS NOT NULL THEN {date}" for date in dates)
    why = _whether_resource(kind)
    preferred = _PREFERRED.get(kind, _OF_DRUGS)
    if kind in _PREFERRED:
        inner, medication = "SELECT *, code.coding AS codings", "NULL::VARCHAR"
    if kind == CONDITION:
        why += [
            (f"contains(verificationStatus::VARCHAR, '\"{status}\"')", f"status {status}") for status in _NOT_SO[kind]
        ]
    elif kind in _PREFERRED:
        why += _whether_so(kind, "status")
    else:
        refers = "coalesce(medicationReference.reference, medication.reference.reference)"
        inner = (
            f"SELECT *, {refers} AS refers, coalesce(medicationCodeableConcept.coding, medication.concept.coding, "
            f"CASE WHEN starts_with({refers}, '#') THEN list_filter(contained, "
            f"lambda c: c.id = substr({refers}, 2))[1].code.coding END) AS codings"
        )
        medication = f"CASE WHEN codings IS NULL THEN id_of(refers, '{MEDICATION}') END"
        why += _whether_so(kind, "status")
    if kind == REQUEST:
        why.append(("doNotPerform", NOT_TO_BE_PERFORMED))
        if intents is not None:
            why += [(f"intent = '{intent}'", f"intent {intent}") for intent in INTENTS if intent not in intents]
            why.append((f"intent IS NULL OR intent NOT IN ({', '.join(map(quoted, intents))})", NO_INTENT))
    inner += f", CASE {written} END AS written FROM ({resources})"
    return (
        f"SELECT id_of(subject.reference, '{PATIENT}') AS patient_id, first_day(written) AS day, "
        "length(written) < 10 AS partial, CASE WHEN written IS NULL THEN "
        f"id_of(coalesce(encounter.reference, context.reference), '{ENCOUNTER}') END AS encounter, "
        f"{medication} AS medication, {_CODE}, {_RESULT if kind == OBSERVATION else ''}"
        f"{_case(why)} AS reason FROM (SELECT *, {_chosen('codings', preferred)} AS chosen FROM ({inner}))"
    )


def _whether_resource(kind: str) -> list[tuple[str, str]]:
    return [("resourceType IS NULL", NO_RESOURCE), (f"resourceType <> '{kind}'", OTHER_TYPE)]


def _whether_so(kind: str, column: str) -> list[tuple[str, str]]:
    return [(f"{column} = '{status}'", f"status {status}") for status in _NOT_SO[kind]]


def _case(conditions: Sequence[tuple[str, str]]) -> str:
    return f"CASE {' '.join(f'WHEN {condition} THEN {quoted(reason)}' for condition, reason in conditions)} END"


def _chosen(codings: str, preferred: Sequence[str]) -> str:
    """Return the SQL of the one of several codings that is taken: of a preferred system, else of a known one."""
    ranked = [*preferred, *(system.name for system in code_systems() if system.name not in preferred)]
    ranks = " ".join(f"WHEN '{system}' THEN {min(rank, len(preferred))}" for rank, system in enumerate(ranked))
    rank = f"CASE WHEN trim(c.code) <> '' THEN CASE system_name(c.\"system\") {ranks} ELSE 98 END ELSE 99 END"
    best = f"list_transform({codings}, lambda c: {rank})"
    return f"CASE WHEN len({codings}) > 1 THEN {codings}[list_position({best}, list_min({best}))] ELSE {codings}[1] END"
