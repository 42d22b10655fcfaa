"""The settings of each step: one class per section of config.yaml, in a module for each script.

The classes are the single source: the commands' flags (`exmed_bert.cli`), the keys of ``config.yaml``, their types,
limits and descriptions all come from the fields here. `exmed_bert.config` combines command line, file and defaults.
"""

from exmed_bert.settings.analyze import AnalyzeSettings
from exmed_bert.settings.base import StepSettings, flag, listed
from exmed_bert.settings.clinvec import ClinVecSettings, HierarchySettings
from exmed_bert.settings.convert import ConvertSettings
from exmed_bert.settings.embed import EmbedSettings
from exmed_bert.settings.explain import ExplainSettings
from exmed_bert.settings.finetune import (
    BASELINES,
    BASELINES_WITH_ANSWER,
    SURVIVAL_BASELINES,
    WITH_ANSWER,
    BaselineName,
    FinetuneSettings,
    is_baseline,
    without_answer,
)
from exmed_bert.settings.generate import FURTHER_EVENTS, GenerateSettings
from exmed_bert.settings.pretrain import PretrainSettings
from exmed_bert.settings.reading import ReadingSettings
from exmed_bert.settings.report import ReportSettings
from exmed_bert.settings.share import ExportSettings, ShareSettings

__all__ = [
    "BASELINES",
    "BASELINES_WITH_ANSWER",
    "FURTHER_EVENTS",
    "SECTIONS",
    "SURVIVAL_BASELINES",
    "WITH_ANSWER",
    "AnalyzeSettings",
    "BaselineName",
    "ClinVecSettings",
    "ConvertSettings",
    "EmbedSettings",
    "ExplainSettings",
    "ExportSettings",
    "FinetuneSettings",
    "GenerateSettings",
    "HierarchySettings",
    "PretrainSettings",
    "ReadingSettings",
    "ReportSettings",
    "ShareSettings",
    "StepSettings",
    "flag",
    "is_baseline",
    "listed",
    "without_answer",
]

SECTIONS: tuple[type[StepSettings], ...] = (
    GenerateSettings,
    ReadingSettings,
    ConvertSettings,
    ClinVecSettings,
    PretrainSettings,
    FinetuneSettings,
    EmbedSettings,
    ReportSettings,
    HierarchySettings,
    AnalyzeSettings,
    ExplainSettings,
    ShareSettings,
    ExportSettings,
)
