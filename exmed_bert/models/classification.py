"""Fine-tuning: the probability of one outcome from a patient's history.

Pretraining has learned to say which code a masked place holds, given all others. So the question whether a code will
come can be put in its own words: a MASK is appended to the history, a visit later than the last, and the code head is
asked how likely it is to be one of the codes in question (a cloze question, or prompt: Schick and Schütze, EACL 2021).
Where pretraining has asked the same of all codes, the answer is the log odds that one comes for the first time within a
year. That answer ranks patients before a single label was seen. Labels then teach its scale, a head beside it, and the
encoder.

Beside it stands what single codes and age say, in the head's first inputs: the sum of the embeddings of a history's
codes, and age as a number (a wide part beside a deep one: Cheng et al., DLRS 2016).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import initialization as init
from transformers.utils import ModelOutput

from exmed_bert.data.vocabulary import MASK
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.model import (
    AheadClassifier,
    CodeClassifier,
    ExMedBertModel,
    ExMedBertPreTrainedModel,
    HistoryBag,
    mean_of_real,
)


@dataclass
class OutcomeOutput(ModelOutput):
    """Output of `ExMedBertForSequenceClassification`.

    Attributes:
        loss: scalar, mean cross-entropy in nats, weighted by the model's ``class_weights``, where labels were given.
        logits: (B,) log odds of the outcome.
        answers: (B,) what the code head says of the codes in question: the log odds that they come, where pretraining
            has asked for them, else the log of their share among all codes; None without a question.
        wide: (B, hidden + 1) the sum of the codes' embeddings, and age: the first inputs of the head.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    answers: Tensor | None = None
    wide: Tensor | None = None


class Recurrent(nn.Module):
    """A recurrent network over the real positions; its last state."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        network = {"gru": nn.GRU, "lstm": nn.LSTM}[config.classifier_head]
        self.network = network(config.hidden_size, config.hidden_size, batch_first=True)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, L, hidden), (B, L) with 1 at real tokens, which come first -> (B, hidden)."""
        if attention_mask is None:
            lengths = torch.full((len(hidden),), hidden.shape[1])
        else:
            lengths = attention_mask.sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(hidden, lengths.long(), batch_first=True, enforce_sorted=False)
        state = self.network(packed)[1]
        return (state[0] if isinstance(state, tuple) else state)[-1]


class LastLayer(nn.Linear):
    """From all that is known of a patient to the log odds; starts at zero."""


class ExMedBertForSequenceClassification(ExMedBertPreTrainedModel):
    """The encoder, a head over the history and, if ``config.question_codes``, the code head's answer.

    The logit is ``scale * answer + bias + head(sum of the codes, age, summary of the history, state of the question)``.
    The head's last layer starts at zero, so that training starts from the answer alone, or from what is fitted to the
    first `wide` inputs beforehand.
    """

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__(config)
        self.bert = ExMedBertModel(config)
        self.class_weights: tuple[float, float] | None = None  # of patients without and with the outcome, in the loss
        self.summary = None if config.classifier_head == "ffn" else Recurrent(config)
        asks = bool(config.question_codes)
        self.bag = HistoryBag(config)
        self.wide = config.hidden_size + 1
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = LastLayer(self.wide + config.hidden_size * (2 if asks else 1), 1)
        if asks:
            self.code_classifier = CodeClassifier(config)
            if config.predict_ahead:
                self.ahead_classifier = AheadClassifier(config)
            self.answer_scale = nn.Parameter(torch.empty(()))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LastLayer):
            init.zeros_(module.weight)
            init.constant_(module.bias, self.config.answer_bias)
            return
        super()._init_weights(module)
        if isinstance(module, ExMedBertForSequenceClassification) and self.config.question_codes:
            init.constant_(module.answer_scale, self.config.answer_scale)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the code embeddings."""
        return self.bert.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        entity_ids: Tensor,
        age_ids: Tensor | None = None,
        sex_ids: Tensor | None = None,
        state_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> OutcomeOutput:
        """Predict the outcome.

        Args:
            input_ids ... attention_mask: as `ExMedBertModel.forward`. With a question, every patient has as many MASK
                tokens as any other, where the question is asked.
            labels: (B,) 1 the outcome came, 0 it did not.
            inputs_embeds: as `ExMedBertModel.forward`.
        """
        hidden = self.bert(
            input_ids=input_ids,
            entity_ids=entity_ids,
            age_ids=age_ids,
            sex_ids=sex_ids,
            state_ids=state_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
        ).last_hidden_state
        summary = mean_of_real(hidden, attention_mask) if self.summary is None else self.summary(hidden, attention_mask)
        embedded = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        wide = self.bag(input_ids, embedded, age_ids)
        answers = None
        if self.config.question_codes:
            asked = hidden[input_ids == MASK].view(len(hidden), -1, hidden.shape[2])
            summary = torch.cat((summary, asked.mean(dim=1)), dim=1)
            more = self.ahead_classifier(wide) if self.config.predict_ahead else None
            answers = self._answers(asked, more)
        logits = self.classifier(torch.cat((wide, self.dropout(summary)), dim=1))[:, 0].float()
        if answers is not None:
            logits = logits + self.answer_scale * answers
        output = OutcomeOutput(logits=logits, answers=answers, wide=wide)
        if labels is not None:
            output.loss = self._loss(logits, labels)
        return output

    def _answers(self, asked: Tensor, more: Tensor | None) -> Tensor:
        """(B, questions, hidden), (B, hidden) -> (B,): log of the odds, or of the share, of all codes in question."""
        scores = self.code_classifier(asked, None if more is None else more[:, None]).float()
        if not self.config.predict_ahead:
            scores = F.log_softmax(scores, dim=-1)
        return scores[:, :, list(self.config.question_codes)].logsumexp(dim=(1, 2))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = None
        if self.class_weights is not None:
            weight = logits.new_tensor(self.class_weights)[labels]
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), weight, reduction="sum")
        return losses / (len(labels) if weight is None else weight.sum())
