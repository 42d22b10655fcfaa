"""The exporters there are."""

from exmed_bert.data.export import csv, fhir, meds, omop
from exmed_bert.data.export.base import Exporter

EXPORTERS: dict[str, Exporter] = {"meds": meds, "csv": csv, "fhir": fhir, "omop": omop}
