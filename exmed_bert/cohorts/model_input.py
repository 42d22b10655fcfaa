"""The form in which a model takes histories."""

from collections.abc import Sequence
from dataclasses import dataclass

from exmed_bert.data.splits import SplitRule
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.vocabulary import AgeUnit, CodeVocabulary


@dataclass(frozen=True)
class ModelInput:
    """The form in which a model takes histories.

    Attributes:
        vocabulary: its codes; ids 0-5 are our special tokens.
        max_length: most codes of a history; the latest visits that fit are kept.
        age_unit: of the ages.
        static_columns: those that it has embeddings of.
        pretraining: which patients each pretraining trained on; None where that is not known.
    """

    vocabulary: CodeVocabulary
    max_length: int
    age_unit: AgeUnit
    pretraining: Sequence[SplitRule] | None
    static_columns: tuple[StaticColumn, ...] = BUILT_IN
