"""How a record of ours is said in MEDS: the code of each row, for who writes such a dataset and who reads it.

=========================  =============================================================  =====================
of the record              code                                                           time
=========================  =============================================================  =====================
birth                      ``MEDS_BIRTH``                                                 its day, or 1 January
event                      its system in capitals and the code: ``ICD10CM//E11.9``        its day
sex                        ``GENDER//FEMALE``                                             null
state                      ``STATE//CA``                                                  null
other static columns       the name in capitals and the value: ``INSURANCE//PUBLIC``      null
prolonged stay             ``PROLONGED_STAY//true``, ``PROLONGED_STAY//false``            null
observation                ``OBSERVATION_START``, ``OBSERVATION_END``                     the first, the last day
death                      ``MEDS_DEATH``                                                 its day
=========================  =============================================================  =====================

Codes and values are those of the record, as they are written there; the value of a measurement is ``numeric_value``, a
flag has no place. What is not known has no row. Times are midnight.
"""

from exmed_bert.codes import code_system
from exmed_bert.data.static_columns import SEX

SEPARATOR = "//"
BIRTH = "MEDS_BIRTH"
PERIODS = {
    "observation_start": "OBSERVATION_START",
    "observation_end": "OBSERVATION_END",
    "death_date": "MEDS_DEATH",
}
PROLONGED_STAY = {1: "PROLONGED_STAY//true", 0: "PROLONGED_STAY//false"}

_DESCRIPTIONS = {
    BIRTH: "Birth, on 1 January where only the year is known",
    PERIODS["observation_start"]: "First day of observation",
    PERIODS["observation_end"]: "Last day of observation",
    PERIODS["death_date"]: "Death",
    PROLONGED_STAY[1]: "Had a prolonged length of stay",
    PROLONGED_STAY[0]: "Had no prolonged length of stay",
}
_OF_COLUMN = {SEX.name: "GENDER"}
_STATIC = "STATIC_"
_TAKEN = {text.partition(SEPARATOR)[0] for text in _DESCRIPTIONS} | set(_OF_COLUMN.values())


def event_prefix(system: str) -> str:
    """Return what stands before the codes of a code system; `exmed_bert.codes.code_system` knows it.

    >>> event_prefix("icd10cm"), code_system(event_prefix("snomedct")).name
    ('ICD10CM', 'snomedct')
    """
    return system.upper()


def static_prefix(column: str) -> str:
    """Return what stands before the values of a static column, unlike that of any other and of any code system.

    >>> static_prefix("sex"), static_prefix("state"), static_prefix("gender"), static_prefix("loinc")
    ('GENDER', 'STATE', 'STATIC_GENDER', 'STATIC_LOINC')
    """
    if column in _OF_COLUMN:
        return _OF_COLUMN[column]
    prefix = column.upper()
    return f"{_STATIC}{prefix}" if prefix in _TAKEN or prefix.startswith(_STATIC) or _is_system(prefix) else prefix


def description(code: str) -> str:
    """Return the description of a code that is no event's.

    >>> description("MEDS_DEATH"), description("GENDER//FEMALE")
    ('Death', 'Gender: FEMALE')
    """
    prefix, _, value = code.partition(SEPARATOR)
    return _DESCRIPTIONS.get(code) or f"{prefix.capitalize().replace('_', ' ')}: {value}"


def _is_system(name: str) -> bool:
    try:
        code_system(name)
    except ValueError:
        return False
    return True
