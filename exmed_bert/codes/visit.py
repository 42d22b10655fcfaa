"""Types of visits, as events of the day on which a visit begins: HL7's classes of encounters (``IMP``, ``AMB``).

A type is a token among those of its day, since models have static columns per patient alone, and attention finds a
token of the same visit as it finds any other. The names that other formats have for a type are spellings of it.
"""

from exmed_bert.codes.system import CodeSystem

_NAMES = {
    "AMB": "Outpatient visit",
    "EMER": "Emergency visit",
    "HH": "Visit at home",
    "IMP": "Inpatient stay",
    "NONAC": "Stay in a hospice or nursing facility",
    "OBSENC": "Stay for observation",
    "VR": "Virtual visit",
}
_SPELLINGS = {
    "AMB": ("AMBULATORY", "OUTPATIENT", "OP", "WELLNESS", "URGENTCARE"),
    "EMER": ("EMERGENCY", "ER", "ED"),
    "HH": ("HOME", "HOME HEALTH"),
    "IMP": ("INPATIENT", "IP", "ERIP", "ACUTE"),
    "NONAC": ("HOSPICE", "SNF"),
    "OBSENC": ("OBSERVATION", "SS"),
    "VR": ("VIRTUAL", "TELEHEALTH"),
}
_CODES = {name: name for name in _NAMES} | {other: name for name, of in _SPELLINGS.items() for other in of}

VISIT = CodeSystem(
    name="visit",
    title="Visit type",
    events="visits",
    url="http://terminology.hl7.org/CodeSystem/v3-ActCode",
    spelling=lambda text: _CODES.get(text.upper()),
    description_of=_NAMES.get,
)
