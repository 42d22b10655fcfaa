"""ExMed-BERT: embeddings of code, entity, age, visit number and static columns under BERT's encoder; pretraining.

Parameter names are the original's, so that published weights load. What the original got wrong is not carried over:
pooling ignores padding, the sinusoidal visit positions survive initialization, PLOS labels are 0 or 1, and logits are
computed where a label is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from exmed_bert.data.masking import IGNORED
from exmed_bert.models.attention import attention_bias
from exmed_bert.models.code_tree import TreeRows
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.days import BUCKETS, day_ids
from exmed_bert.models.dropout import dropout
from exmed_bert.models.encoder import Encoder
from exmed_bert.models.forecast import FollowedUp, ForecastHead
from exmed_bert.models.heads import BagOfCodes, CodeClassifier, PlosClassifier
from exmed_bert.models.legacy import PARAMETERS

_LOGITS_AT_ONCE = 2**24  # of a training step, 64 MiB; each is held several times on the way to the gradient


@dataclass
class MaskedCodeOutput(ModelOutput):
    """Output of `ExMedBertForMaskedLM`.

    Attributes:
        loss: scalar, where labels were given: the sum of the losses of masked codes, forecasts and prolonged stays.
        code_loss: scalar, mean cross-entropy over the masked positions.
        forecast_loss: scalar, where forecasts were made: minus the log-likelihood of the time to each code, group of
            codes and death, per one that occurred.
        plos_loss: scalar, weighted cross-entropy over the patients whose length of stay is known.
        logits: (B, L, V), scores of all codes at every position; None where code labels were given.
        masked_logits: (n, V), scores at the n masked positions in the order of ``code_labels != -100``, where code
            labels were given; None in training where these are so many that the loss is computed in chunks.
        plos_logits: (B, 2): no prolonged stay, prolonged stay.
    """

    loss: Tensor | None = None
    code_loss: Tensor | None = None
    forecast_loss: Tensor | None = None
    plos_loss: Tensor | None = None
    logits: Tensor | None = None
    masked_logits: Tensor | None = None
    plos_logits: Tensor | None = None


def sinusoidal_positions(count: int, size: int) -> Tensor:
    """Return (count, size) sinusoidal embeddings of positions, as in Vaswani et al., 2017, section 3.5."""
    position = torch.arange(count, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, size, 2, dtype=torch.float32) * (-math.log(10_000.0) / size))
    table = torch.zeros(count, size)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency[: size // 2])
    return table


class VisitPositions(nn.Embedding):
    """Fixed sinusoidal embeddings of visit numbers. Not trained; a checkpoint's own table replaces them."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(count, size)
        self.weight.requires_grad = False


class EmbeddingTable(nn.Embedding):
    """An embedding table that is to be drawn with entries of standard deviation ``init_scale``."""

    def __init__(self, count: int, size: int, init_scale: float) -> None:
        super().__init__(count, size)
        self.init_scale = init_scale


class ExMedBertEmbeddings(nn.Module):
    """The sum of a token's embeddings, normalized: code, entity, age, visit number, and each static column."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        scale = config.context_scale
        self.code_embeddings: nn.Embedding = EmbeddingTable(config.code_vocab_size, size, 1.0)
        self.entity_embeddings = EmbeddingTable(config.number_of_codes, size, scale)
        self.sex_embeddings = EmbeddingTable(config.sex_vocab_size, size, scale)
        self.positional_embeddings = VisitPositions(config.max_position_embedding, size)
        self.age_embeddings = EmbeddingTable(config.age_vocab_size, size, scale)
        self.state_embeddings = EmbeddingTable(config.region_vocab_size, size, scale)
        self.static = tuple(config.static_vocab_sizes)
        for name, count in config.static_vocab_sizes.items():
            if not hasattr(self, f"{name}_embeddings"):
                setattr(self, f"{name}_embeddings", EmbeddingTable(count, size, scale))
        self.visit_days = config.visit_days
        if config.visit_days:
            self.day_embeddings = EmbeddingTable(2 * BUCKETS, size, scale)
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout_probability = config.hidden_dropout_prob

    def forward(
        self,
        input_ids: Tensor,
        entity_ids: Tensor,
        age_ids: Tensor | None,
        visit_ids: Tensor | None,
        static_ids: Mapping[str, Tensor],
        inputs_embeds: Tensor | None = None,
        visit_days: Tensor | None = None,
    ) -> Tensor:
        """Return (B, L, hidden).

        Args:
            input_ids, entity_ids, age_ids, visit_ids: (B, L).
            static_ids: by name of a static column (B, L) or (B, 1); those that are missing stand for padding.
            inputs_embeds: (B, L, hidden), stands in for the code embeddings alone.
            visit_days: (B, L), which a model that knows days needs.
        """
        padding = torch.zeros_like(input_ids)
        embedded = (
            (self.code_embeddings(input_ids) if inputs_embeds is None else inputs_embeds)
            + self.entity_embeddings(entity_ids)
            + self.age_embeddings(padding if age_ids is None else age_ids)
            + self.positional_embeddings(padding if visit_ids is None else visit_ids)
        )
        for name in self.static:
            embedded = embedded + getattr(self, f"{name}_embeddings")(static_ids.get(name, padding))
        if self.visit_days:
            if visit_days is None:
                raise TypeError("visit_days is missing: this model sees the days between visits")
            embedded = embedded + self.day_embeddings(day_ids(visit_days)).sum(dim=0)
        normalized = self.layer_norm(embedded)
        return dropout(normalized, self.dropout_probability) if self.training else normalized


class ExMedBertPreTrainedModel(PreTrainedModel):
    """Initialization, loading and saving, shared by all ExMed-BERT models."""

    config_class = ExMedBertConfig
    config: ExMedBertConfig
    tree_rows: TreeRows | None = None  # what the nodes above the codes have learned; `models.folder` reads it
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # The original saves a buffer of positions, and the bias of the code head twice, under two names.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"predictions\.bias$"]  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, *args: Any, key_mapping: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Load a model as transformers does; parameters may have the names of earlier releases."""
        loaded = super().from_pretrained(*args, key_mapping=PARAMETERS | (key_mapping or {}), **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = None  # or saving would go back to the old names
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers.initialization leaves alone what has been loaded from a checkpoint.
        if isinstance(module, VisitPositions):
            table = sinusoidal_positions(*module.weight.shape).to(module.weight)
            init.copy_(module.weight, self.config.context_scale * table)
        elif isinstance(module, EmbeddingTable):
            if self.config.initialization == "orthogonal":  # the gain makes up for the length of the columns
                init.orthogonal_(module.weight, gain=module.init_scale * math.sqrt(max(module.weight.shape)))
            else:
                init.normal_(module.weight, std=module.init_scale)
        elif isinstance(module, nn.Linear):
            if self.config.initialization == "orthogonal":
                init.orthogonal_(module.weight, gain=self.config.orthogonal_gain)
            else:
                init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ForecastHead):
            module.initialize()
        else:
            super()._init_weights(module)


class ExMedBertModel(ExMedBertPreTrainedModel):
    """The encoder without a head."""

    # The heads of pretrained and of fine-tuned models, and the original's buffer of positions.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"classifier\.",
        r"^(forecast_head|summary)\.",
        r"^prompt_scale$",
        r"position_ids$",
    ]

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__(config)
        self.embeddings = ExMedBertEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the code embeddings."""
        return self.embeddings.code_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the code embeddings."""
        assert isinstance(value, nn.Embedding)
        self.embeddings.code_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        entity_ids: Tensor,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        plos_label: Tensor | None = None,
        visit_days: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **static_ids: Tensor,
    ) -> BaseModelOutput:
        """Encode patients.

        Args:
            input_ids: (B, L) code ids; a single patient may be (L,).
            entity_ids: (B, L) entity types.
            age_ids, visit_ids: (B, L) ages and visit numbers. None stands for padding everywhere.
            attention_mask: (B, L), 1 at real tokens, 0 at padding. None: nothing is padded.
            inputs_embeds: (B, L, hidden), in place of the embeddings of the codes; the others are added to it.
            plos_label: not used, so that an item of a `PatientDataset` can be passed as it is.
            visit_days: (B, L) days since the patient's first visit, 0 where padded; differences alone count. Models
                that know no days (``config.visit_days``) do not look at them.
            output_hidden_states, output_attentions: whether these are returned; None: as the configuration says.
            static_ids: ``sex_ids``, ``state_ids`` and so on, (B, L) or (B, 1); ``position_ids``, the original's name
                of ``visit_ids``, is read too.

        Returns:
            ``last_hidden_state``, (B, L, hidden); where asked for, ``hidden_states``, of the embeddings and of each
            layer, and ``attentions``, the weights of each layer, (B, heads, L, L).

        Raises:
            TypeError: an input has no embedding in this model, or is missing where it has one.
            ValueError: attentions are asked for of a kernel that gives none, any but ``eager``.
        """
        if input_ids.dim() == 1:
            input_ids, entity_ids = input_ids[None], entity_ids[None]
            age_ids, visit_ids, attention_mask, visit_days = (
                None if ids is None else ids[None] for ids in (age_ids, visit_ids, attention_mask, visit_days)
            )
            static_ids = {name: ids.reshape(1, -1) for name, ids in static_ids.items()}
        if "position_ids" in static_ids:
            visit_ids = static_ids.pop("position_ids")
        static = {name.removesuffix("_ids"): ids for name, ids in static_ids.items()}
        if unknown := static.keys() - self.config.static_vocab_sizes.keys():
            raise TypeError(f"{type(self).__name__}: no embedding for {', '.join(f'{name}_ids' for name in unknown)}")
        embedded = self.embeddings(input_ids, entity_ids, age_ids, visit_ids, static, inputs_embeds, visit_days)
        bias = attention_bias(self.config, attention_mask, visit_ids, embedded, visit_days)
        config = self.config
        states: list[Tensor] | None = [] if _wanted(output_hidden_states, config.output_hidden_states) else None
        weights: list[Tensor | None] | None = [] if _wanted(output_attentions, config.output_attentions) else None
        if weights is not None and config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions: attention kernel {config._attn_implementation!r} gives no weights, expected "
                "'eager': model.set_attn_implementation('eager')"
            )
        if states is None and weights is None:
            return BaseModelOutput(last_hidden_state=self.encoder(embedded, bias))
        return BaseModelOutput(
            last_hidden_state=self.encoder(embedded, bias, states, weights),
            hidden_states=None if states is None else tuple(states),
            attentions=None if weights is None else tuple(weight for weight in weights if weight is not None),
        )


def _wanted(argument: bool | None, configured: bool | None) -> bool:
    return bool(configured if argument is None else argument)


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, V), (n,) -> scalar. Over no position it is a zero that carries a gradient; a mean would be no number."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")


class ExMedBertForMaskedLM(ExMedBertPreTrainedModel):
    """Pretraining: predict masked codes, and prolonged length of stay where ``config.predict_los``."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__(config)
        self.bert = ExMedBertModel(config)
        self.code_classifier = CodeClassifier(config)
        if config.predict_los:
            self.plos_classifier = PlosClassifier(config)
        if config.predict_future_codes:
            self.bag_of_codes = BagOfCodes(config)
            self.forecast_head = ForecastHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the code embeddings."""
        return self.bert.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        entity_ids: Tensor,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        code_labels: Tensor | None = None,
        plos_label: Tensor | None = None,
        query_positions: Tensor | None = None,
        observed_days: Tensor | None = None,
        target_ids: Tensor | None = None,
        target_days: Tensor | None = None,
        visit_days: Tensor | None = None,
        **static_ids: Tensor,
    ) -> MaskedCodeOutput:
        """Predict codes and, if the model has that head, prolonged length of stay.

        Args:
            input_ids ... attention_mask, visit_days, static_ids: as `ExMedBertModel.forward`.
            code_labels: (B, L), the original code at masked positions, -100 elsewhere.
            plos_label: (B,), 1 prolonged, 0 not, -100 unknown.
            query_positions: (B,) where a forecast is queried, -100 where none is.
            observed_days: (B,) days of observation after the prediction time.
            target_ids, target_days: (B, J) as `FollowedUp` has them.
        """
        hidden = self.bert(
            input_ids=input_ids,
            entity_ids=entity_ids,
            age_ids=age_ids,
            visit_ids=visit_ids,
            attention_mask=attention_mask,
            visit_days=visit_days,
            **static_ids,
        ).last_hidden_state
        output = MaskedCodeOutput()
        if code_labels is None:
            output.logits = self.code_classifier(hidden)
        else:
            masked = code_labels != IGNORED
            states, labels = hidden[masked], code_labels[masked]  # 15 % of the positions, and so of the head's work
            if self._is_large(states):
                summed = self._summed_in_chunks(states, labels)
            else:
                output.masked_logits = self.code_classifier(states)
                summed = _summed_loss(output.masked_logits, labels)
            output.code_loss = output.loss = summed / max(len(labels), 1)
            if query_positions is not None:
                assert observed_days is not None and target_ids is not None and target_days is not None
                rows = (query_positions != IGNORED).nonzero()[:, 0]
                codes = torch.where(masked[rows], code_labels[rows], input_ids[rows])  # before masking
                ages = None if age_ids is None else age_ids[rows]
                states = self.forecast_states(hidden[rows, query_positions[rows]], codes, ages)
                followed = FollowedUp(observed_days[rows], target_ids[rows], target_days[rows])
                head = self.code_classifier.predictions
                summed = self.forecast_head.summed_loss(
                    states, followed, head.decoder.weight, head.logit_mask, _LOGITS_AT_ONCE
                )
                output.forecast_loss = summed / followed.happened.sum().clamp(min=1)
                output.loss = output.code_loss + self.config.forecast_weight * output.forecast_loss
        if self.config.predict_los:
            output.plos_logits = self.plos_classifier(hidden, attention_mask)
            if plos_label is not None:
                output.plos_loss = self._plos_loss(output.plos_logits.float(), plos_label)
                output.loss = output.plos_loss if output.loss is None else output.loss + output.plos_loss
        return output

    def forecast_states(self, hidden: Tensor, codes: Tensor, ages: Tensor | None) -> Tensor:
        """Return what the rows of codes are compared with in a forecast, (n, hidden).

        Args:
            hidden: (n, hidden) at the queries.
            codes, ages: (n, L) of the histories, as they are before masking.
        """
        bag = self.bag_of_codes(codes, self.get_input_embeddings()(codes), ages)
        return self.code_classifier.predictions.states(hidden, self.forecast_head(bag))

    def _is_large(self, states: Tensor) -> bool:
        return self.training and len(states) * self.config.code_vocab_size > _LOGITS_AT_ONCE

    def _summed_in_chunks(self, states: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss of masked codes, without ever holding the logits of all positions."""

        def chunk_loss(states: Tensor, labels: Tensor) -> Tensor:
            return _summed_loss(self.code_classifier(states), labels)

        size = max(_LOGITS_AT_ONCE // self.config.code_vocab_size, 1)
        chunks = zip(states.split(size), labels.split(size), strict=True)
        losses = [checkpoint(chunk_loss, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        return torch.stack(losses).sum()

    def _plos_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted mean over the patients whose length of stay is known; 0 when none is."""
        weight = None if self.config.plos_weight is None else logits.new_tensor(self.config.plos_weight)
        losses = F.cross_entropy(logits, label, weight=weight, ignore_index=IGNORED, reduction="sum")
        known = label[label != IGNORED]
        total = known.new_ones(len(known)).sum() if weight is None else weight[known].sum()
        return losses / total.clamp(min=torch.finfo(logits.dtype).tiny)
