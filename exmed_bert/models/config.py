"""Configuration of the model, with the original ExMed-BERT's keys, so that its published ``config.json`` is read."""

from typing import Any, ClassVar

from transformers import PretrainedConfig

from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models.legacy import CONFIG_KEYS, with_current_names

STEEPEST, FLATTEST = 8.0, 0.3  # of a head's attention logits, a visit


def visit_slopes(heads: int) -> list[float]:
    """Return what the attention logits of each head lose a visit of distance, after ALiBi (Press et al., 2022).

    >>> visit_slopes(1), visit_slopes(2), [round(slope, 2) for slope in visit_slopes(4)]
    ([0.0], [0.0, 8.0], [0.0, 8.0, 1.55, 0.3])
    """
    ratio = (FLATTEST / STEEPEST) ** (1 / max(heads - 2, 1))
    return [0.0, *(STEEPEST * ratio**head for head in range(heads - 1))]


class ExMedBertConfig(PretrainedConfig):
    """Sizes and options of an ExMed-BERT (Lentzen et al., 2023).

    Attributes:
        code_vocab_size: code ids, special tokens included.
        number_of_codes: entity types: the default one of special tokens, and the code systems.
        age_vocab_size, sex_vocab_size, region_vocab_size: ids of ages, sexes and states.
        static_columns: static columns beside sex and state: by name the values that each can have.
        max_position_embedding: visit numbers, 0 (padding) included; the original's spelling.
        predict_codes, predict_los: which heads pretraining has.
        plos_weight: weight in the loss of patients without and with a prolonged length of stay.
        initialization: ``orthogonal`` or ``normal``.
        initializer_range: standard deviation of normally drawn linear layers.
        orthogonal_gain: factor of orthogonally drawn linear layers. At 1 each layer turns the residual stream around
            as much as it keeps of it, and six layers hardly learn.
        visit_distance_bias: whether the attention heads see how many visits two codes are apart. The first head sees
            none of it; the others lose `visit_slopes` a visit, down to a head that hardly looks beyond the visit. With
            positions in the embeddings alone a model takes very long to find what meets in a visit. The original's
            weights know nothing of it.
        visit_days: whether the model sees the days between visits: embeddings of the days since the visit before and
            until the patient's last token, and with ``visit_distance_bias`` the attention of the heads beyond the
            second falls with the days between two tokens (`days.day_powers`), no longer with the visits. Such a model
            needs the days of visits; others do not look at them.
        predict_future_codes: whether pretraining also forecast, at a MASK after the history, when codes occur for the
            first time.
        hazard_bin_ends: days at which the hazards of a forecast change, `HazardBins.ends`. None: of an earlier release,
            whose forecast is the log odds that a code occurs for the first time within a year.
        forecast_weight: of the loss of forecasts beside that of masked codes, each per code.
        forecast_groups: names of the groups of codes with a forecast of their own, `CodeGroups.names`.
        prompt_days: the gap after the prediction time and the horizon that the prompt's risk is of.
        outcome_bins: of a fine-tuned model of time to event the days at which all bins of its hazards but the last end;
            None for a model of one log odds.
        outcome_causes: of such a model how many events compete, the outcome first.
        context_scale: size of the embeddings of entity, age, sex, state and visit position beside the code's, whose
            entries have unit variance. The six are added up: at equal size five sixths of what a token shows is not
            its code, and models learn far more slowly which codes go together.
    """

    model_type = "exmedbert"
    attribute_map: ClassVar[dict[str, str]] = {
        "vocab_size": "code_vocab_size",
        "max_position_embeddings": "max_position_embedding",
    }

    code_vocab_size: int = 100
    number_of_codes: int = 3
    age_vocab_size: int = 117
    sex_vocab_size: int = 8
    region_vocab_size: int = 62
    static_columns: dict[str, list[str]] | None = None
    hidden_size: int = 288
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embedding: int = 513
    initialization: str = "orthogonal"
    initializer_range: float = 0.02
    orthogonal_gain: float = 0.4
    context_scale: float = 0.1
    visit_distance_bias: bool = False
    visit_days: bool = False
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    predict_codes: bool = True
    predict_los: bool = False
    predict_future_codes: bool = False
    hazard_bin_ends: tuple[float, ...] | list[float] | None = None
    forecast_weight: float = 1.0
    forecast_groups: tuple[str, ...] | list[str] = ()
    prompt_days: tuple[float, float] | list[float] = (0.0, 365.0)
    plos_weight: tuple[float, float] | list[float] | None = (0.25, 1.0)
    classifier_head: str = "ffn"
    target_codes: tuple[int, ...] | list[int] = ()
    prompt_scale: float = 1.0
    prompt_bias: float = 0.0
    outcome_bins: tuple[float, ...] | list[float] | None = None
    outcome_causes: int = 1
    # Read by transformers' BERT layers.
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = False

    @property
    def forecasts_hazards(self) -> bool:
        """Whether forecasts are hazards over time."""
        return self.predict_future_codes and self.hazard_bin_ends is not None

    @property
    def static_vocab_sizes(self) -> dict[str, int]:
        """Number of ids of each static column by its name: sex, state, then those of ``static_columns``."""
        further = {name: len(SPECIAL_TOKENS) + len(values) for name, values in (self.static_columns or {}).items()}
        return {"sex": self.sex_vocab_size, "state": self.region_vocab_size} | further

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "ExMedBertConfig":
        """Make the configuration of the content of a ``config.json``, keys of earlier releases included."""
        return super().from_dict(with_current_names(config_dict, CONFIG_KEYS), **kwargs)
