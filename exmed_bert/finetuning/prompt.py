"""The prompt of a task: what is asked of a pretrained model at the end of a history."""

from dataclasses import dataclass

from exmed_bert.cohorts.collator import PromptCollator
from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.data.batches import QUERY_ENTITY
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.models import ExMedBertConfig


@dataclass(frozen=True)
class Prompt:
    """What is asked of a pretrained model.

    Attributes:
        targets: ids of codes and, of a model that forecasts hazards, of groups of codes after these; none: no prompt.
        days: the days after the prediction time from which and until which they count.
    """

    targets: list[int]
    days: tuple[float, float] = (0.0, 365.0)

    @classmethod
    def of(cls, task: Task, config: ExMedBertConfig, vocabulary: CodeVocabulary) -> "Prompt":
        """Return the prompt of a task, for a model of this configuration and vocabulary."""
        codes = task.target_codes(vocabulary)
        gap, horizon = task.target_days
        if config.forecasts_hazards:
            single, groups = CodeGroups.of(vocabulary, config.forecast_groups).cover(codes)
            codes = [*single, *(len(vocabulary) + place for place in groups)]
        return cls(codes, (float(gap), float(horizon)))


def prompt_collator(config: ExMedBertConfig, vocabulary: CodeVocabulary, targets: list[int]) -> PromptCollator:
    """Return the collator that puts the queries of a prompt at the end of histories: one of a forecast of hazards.

    Other models take one for each code system of the targets.
    """
    if config.forecasts_hazards:
        entities = [QUERY_ENTITY] if targets else []
    else:
        entities = sorted({int(vocabulary.entities[token]) for token in targets})
    return PromptCollator(entities, config.max_position_embedding - 1)
