"""Fine-tuning: the probability of one outcome, or its hazards over time, from a patient's history.

Pretraining has learned to predict a masked code from all others. Whether a code will occur can be put in the same
form, a prompt (Schick and Schütze, EACL 2021): a MASK is appended to the history, a visit later than the last, and the
code head gives the logits of the target codes there. If pretraining made forecasts, the prompt logit is the log odds
that one of them occurs for the first time within the task's horizon: a risk before any label is seen. Labels then train
its scale, a head beside it, and the encoder.

A model of time to event has hazards in place of the log odds (`models.hazards`): each event that competes has a score,
made of the same parts, and each bin of days a rate and a slope by which the score acts there.

The head also takes a bag of codes: the sum of the embeddings of a history's codes, and age as a number (a wide part
beside a deep one: Cheng et al., DLRS 2016).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import initialization as init
from transformers.utils import ModelOutput

from exmed_bert.data.vocabulary import MASK
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.forecast import ForecastHead
from exmed_bert.models.hazards import HazardBins, log_likelihood
from exmed_bert.models.heads import BagOfCodes, CodeClassifier, mean_of_real
from exmed_bert.models.model import ExMedBertModel, ExMedBertPreTrainedModel


@dataclass
class OutcomeOutput(ModelOutput):
    """Output of `ExMedBertForSequenceClassification`.

    Attributes:
        loss: scalar, mean cross-entropy in nats, weighted by the model's ``class_weights``, where labels were given; of
            a model of time to event the negative log-likelihood.
        logits: (B,) log odds of the outcome; of a model of time to event (B, causes, bins) log hazards per day.
        scores: (B, causes) what ranks the patients: of a model of time to event the log hazard ratios, else the logits.
        prompt_logits: (B,) log odds that a target code occurs, if pretraining made forecasts, else the log of the
            target codes' probability among all codes; None without a prompt.
        wide: (B, hidden + 1) the sum of the codes' embeddings, and age: the first inputs of the head.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    scores: Tensor | None = None
    prompt_logits: Tensor | None = None
    wide: Tensor | None = None


class Recurrent(nn.Module):
    """A recurrent network over the real positions; its last state."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        network = {"gru": nn.GRU, "lstm": nn.LSTM}[config.classifier_head]
        self.network = network(config.hidden_size, config.hidden_size, batch_first=True)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, L, hidden), (B, L) with 1 at real tokens, which come first -> (B, hidden)."""
        if attention_mask is not None and torch.compiler.is_exporting():  # which knows no packed sequences
            states = self.network(hidden)[0]
            last = (attention_mask.sum(dim=1) - 1).clamp(min=0)[:, None, None]
            return states.gather(1, last.expand(-1, 1, states.shape[2]))[:, 0]
        if attention_mask is None:
            lengths = torch.full((len(hidden),), hidden.shape[1])
        else:
            lengths = attention_mask.sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(hidden, lengths.long(), batch_first=True, enforce_sorted=False)
        state = self.network(packed)[1]
        return (state[0] if isinstance(state, tuple) else state)[-1]


class LastLayer(nn.Linear):
    """From bag of codes and summary to log odds or scores; its weights start at zero."""


class ExMedBertForSequenceClassification(ExMedBertPreTrainedModel):
    """The encoder, a head over the history and, if ``config.target_codes``, the code head's logits for a prompt.

    The logit is ``scale * prompt logit + bias + head(bag of codes, summary of the history, state of the query)``.
    The head's last layer starts at zero, so that training starts from the prompt logit alone, or from what is fitted to
    the first `wide` inputs beforehand. With ``config.outcome_bins`` it is the score of each cause, and the log hazard
    is ``rate of the bin + slope of the bin * score``.
    """

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__(config)
        self.bert = ExMedBertModel(config)
        self.class_weights: tuple[float, float] | None = None  # of patients without and with the outcome, in the loss
        self.summary = None if config.classifier_head == "ffn" else Recurrent(config)
        has_prompt = bool(config.target_codes)
        self.bag_of_codes = BagOfCodes(config)
        self.wide = config.hidden_size + 1
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.bins = None if config.outcome_bins is None else HazardBins(tuple(config.outcome_bins))
        causes = 1 if self.bins is None else config.outcome_causes
        self.classifier = LastLayer(self.wide + config.hidden_size * (2 if has_prompt else 1), causes)
        if self.bins is not None:
            self.rates = nn.Parameter(torch.empty(causes, len(self.bins)))
            self.slopes = nn.Parameter(torch.empty(causes, len(self.bins)))
        if has_prompt:
            self.code_classifier = CodeClassifier(config)
            if config.predict_future_codes:
                self.forecast_head = ForecastHead(config)
            if config.forecasts_hazards:  # which have biases of their own
                self.code_classifier.predictions.decoder.bias.requires_grad_(False)
            self.prompt_scale = nn.Parameter(torch.empty(() if self.bins is None else (causes,)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LastLayer):
            init.zeros_(module.weight)
            init.constant_(module.bias, self.config.prompt_bias)
            return
        super()._init_weights(module)
        if isinstance(module, ExMedBertForSequenceClassification):
            if self.config.target_codes:
                init.constant_(module.prompt_scale, self.config.prompt_scale)
            if module.bins is not None:
                init.zeros_(module.rates)
                init.ones_(module.slopes)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the code embeddings."""
        return self.bert.get_input_embeddings()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that pretraining has not trained; they take a learning rate of their own."""
        yield from self.classifier.parameters()
        if self.summary is not None:
            yield from self.summary.parameters()
        if self.config.target_codes:
            yield self.prompt_scale
        if self.bins is not None:
            yield from (self.rates, self.slopes)

    def forward(
        self,
        input_ids: Tensor,
        entity_ids: Tensor,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        visit_days: Tensor | None = None,
        weights: Tensor | None = None,
        **static_ids: Tensor,
    ) -> OutcomeOutput:
        """Predict the outcome.

        Args:
            input_ids ... attention_mask: as `ExMedBertModel.forward`. With a prompt, every patient has the same number
                of MASK tokens, the queries.
            labels: (B,) 1 the outcome came, 0 it did not; of a model of time to event (B, 2), the days of follow-up and
                what ended it: 0 censoring, else the number of the cause from 1 on.
            inputs_embeds, visit_days: as `ExMedBertModel.forward`.
            weights: (B,) what each patient counts in the loss, 1 on average; None where all count the same.
        """
        hidden = self.bert(
            input_ids=input_ids,
            entity_ids=entity_ids,
            age_ids=age_ids,
            visit_ids=visit_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            visit_days=visit_days,
            **static_ids,
        ).last_hidden_state
        embedded = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        wide = self.bag_of_codes(input_ids, embedded, age_ids)
        queries = hidden[input_ids == MASK].view(len(hidden), -1, hidden.shape[2]) if self.config.target_codes else None
        output = self.outcome(hidden, attention_mask, wide, queries)
        if labels is not None:
            assert output.logits is not None
            output.loss = self._loss(output.logits, labels, weights)
        return output

    def outcome(
        self, hidden: Tensor, attention_mask: Tensor | None, wide: Tensor, queries: Tensor | None
    ) -> OutcomeOutput:
        """Predict the outcome from what the encoder has made of histories.

        Args:
            hidden: (B, L, hidden), its states.
            attention_mask: (B, L), as `forward` takes it.
            wide: (B, hidden + 1), the bag of codes.
            queries: (B, queries, hidden), those of ``hidden`` at the prompt; None without one.
        """
        summary = mean_of_real(hidden, attention_mask) if self.summary is None else self.summary(hidden, attention_mask)
        prompt_logits = None
        if queries is not None:
            summary = torch.cat((summary, queries.mean(dim=1)), dim=1)
            more = self.forecast_head(wide) if self.config.predict_future_codes else None
            prompt_logits = self._prompt_logits(queries, more)
        scores = self.classifier(torch.cat((wide, self.dropout(summary)), dim=1)).float()
        if prompt_logits is not None:
            scores = scores + self.prompt_scale * prompt_logits[:, None]
        logits = scores[:, 0] if self.bins is None else self.rates + self.slopes * scores[:, :, None]
        return OutcomeOutput(logits=logits, scores=scores, prompt_logits=prompt_logits, wide=wide)

    def _prompt_logits(self, queries: Tensor, more: Tensor | None) -> Tensor:
        """(B, queries, hidden), (B, hidden) -> (B,): log odds, or log probability, of the target codes."""
        if self.config.forecasts_hazards:
            head = self.code_classifier.predictions
            states = head.states(queries[:, 0], more)  # of one query: a forecast is of all code systems
            gap, horizon = self.config.prompt_days
            return self.forecast_head.log_odds(
                states, list(self.config.target_codes), head.decoder.weight, (gap, horizon)
            )
        scores = self.code_classifier(queries, None if more is None else more[:, None]).float()
        if not self.config.predict_future_codes:
            scores = F.log_softmax(scores, dim=-1)
        return scores[:, :, list(self.config.target_codes)].logsumexp(dim=(1, 2))

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        if self.bins is not None:
            days, event = labels[:, :1].expand(logits.shape[:2]), labels[:, 1:]
            happened = event == torch.arange(1, logits.shape[1] + 1, device=labels.device)
            return -log_likelihood(logits, self.bins.exposure(days), self.bins.of(days), happened).sum(dim=1).mean()
        of_class = None
        if self.class_weights is not None:
            of_class = logits.new_tensor(self.class_weights)[labels]
            weights = of_class if weights is None else of_class * weights
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), weights, reduction="sum")
        return losses / (len(labels) if of_class is None else of_class.sum())
