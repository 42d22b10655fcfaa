"""The exporters there are."""

from exmed_bert.data.export.base import Exporter
from exmed_bert.data.export.meds import export_meds

EXPORTERS: dict[str, Exporter] = {"meds": export_meds}
