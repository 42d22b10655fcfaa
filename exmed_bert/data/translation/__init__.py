"""Codes of any system, as users' files declare them, as codes of the systems that a model is trained on."""

from exmed_bert.data.translation.lookalikes import as_written
from exmed_bert.data.translation.summary import KEPT, LEFT_OUT, MAPPED, OUTCOMES, UNKNOWN, TranslationSummary
from exmed_bert.data.translation.translator import Translator

__all__ = ["KEPT", "LEFT_OUT", "MAPPED", "OUTCOMES", "UNKNOWN", "TranslationSummary", "Translator", "as_written"]
