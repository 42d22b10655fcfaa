"""ExMed-BERT: configuration, embeddings, encoder and heads, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from exmed_bert.models.classification import ExMedBertForSequenceClassification, OutcomeOutput
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.model import (
    ExMedBertForMaskedLM,
    ExMedBertModel,
    ExMedBertPreTrainedModel,
    MaskedCodeOutput,
)

AutoConfig.register(ExMedBertConfig.model_type, ExMedBertConfig, exist_ok=True)
AutoModel.register(ExMedBertConfig, ExMedBertModel, exist_ok=True)
AutoModelForMaskedLM.register(ExMedBertConfig, ExMedBertForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(ExMedBertConfig, ExMedBertForSequenceClassification, exist_ok=True)

__all__ = [
    "ExMedBertConfig",
    "ExMedBertForMaskedLM",
    "ExMedBertForSequenceClassification",
    "ExMedBertModel",
    "ExMedBertPreTrainedModel",
    "MaskedCodeOutput",
    "OutcomeOutput",
]
