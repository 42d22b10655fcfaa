"""What the JSON files of a model's folder may hold, checked by pydantic before anything is built from them."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from transformers.activations import ACT2FN

from exmed_bert.console import InputError
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, AgeUnit

_MOST = 2**31 - 1
_SHOWN = 100  # characters of a wrong value

Count = Annotated[int, Field(ge=1, le=_MOST)]
CodeId = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Days = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Saved(BaseModel):
    """Further keys, as transformers and other releases write them, are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)


class SavedConfig(_Saved):
    """Of a config.json what a model is built from."""

    code_vocab_size: Annotated[int, Field(ge=len(SPECIAL_TOKENS), le=_MOST)] = 100
    number_of_codes: Count = 3
    age_vocab_size: Count = 117
    sex_vocab_size: Count = 8
    region_vocab_size: Count = 62
    static_columns: dict[str, list[str]] | None = None
    hidden_size: Count = 288
    num_hidden_layers: Annotated[int, Field(ge=0, le=_MOST)] = 6
    num_attention_heads: Count = 6
    intermediate_size: Count = 512
    hidden_act: str = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embedding: Count = 513
    initialization: Literal["orthogonal", "normal"] = "orthogonal"
    initializer_range: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    orthogonal_gain: Number = 0.4
    context_scale: Number = 0.1
    visit_distance_bias: bool = False
    visit_days: bool = False
    layer_norm_eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-12
    pad_token_id: CodeId | None = 0
    predict_codes: bool = True
    predict_los: bool = False
    predict_future_codes: bool = False
    hazard_bin_ends: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    forecast_weight: Number = 1.0
    forecast_groups: list[str] = []
    prompt_days: Annotated[list[Days], Field(min_length=2, max_length=2)] = [0.0, 365.0]
    plos_weight: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    classifier_head: Literal["ffn", "gru", "lstm"] = "ffn"
    target_codes: list[CodeId] = []
    prompt_scale: Number = 1.0
    prompt_bias: Number = 0.0
    outcome_bins: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    outcome_causes: Annotated[int, Field(ge=1, le=2)] = 1

    @field_validator("hidden_act")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ACT2FN:
            raise ValueError(f"expected an activation that transformers has, such as {', '.join(sorted(ACT2FN)[:3])}")
        return name

    @model_validator(mode="after")
    def _fits_itself(self) -> "SavedConfig":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} attention heads do not divide hidden_size {self.hidden_size}")
        targets = self.code_vocab_size + len(self.forecast_groups)
        if self.target_codes and max(self.target_codes) >= targets:
            raise ValueError(f"target_codes has {max(self.target_codes)}, codes and groups are {targets}")
        ends = self.hazard_bin_ends or []
        if any(end <= before for before, end in pairwise(ends)):
            raise ValueError(f"hazard_bin_ends is {ends}, expected days that rise")
        if self.prompt_days[0] >= self.prompt_days[1]:
            raise ValueError(f"prompt_days is {self.prompt_days}, expected a gap and a later horizon")
        if self.outcome_bins and any(end <= start for start, end in pairwise(self.outcome_bins)):
            raise ValueError(f"outcome_bins are {self.outcome_bins}, expected days that rise")
        return self

    @property
    def parameters(self) -> int:
        """The number of parameters that the model has at least."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        rows = self.code_vocab_size + self.number_of_codes + self.age_vocab_size + self.max_position_embedding
        rows += self.sex_vocab_size + self.region_vocab_size
        return self.num_hidden_layers * layer + rows * self.hidden_size


class _BySeed(_Saved):
    model_config = ConfigDict(extra="forbid", strict=True)

    seed: Seed
    train_ratio: Share


class _FromInput(_Saved):
    model_config = ConfigDict(extra="forbid", strict=True)

    from_input: Literal[True]


class SavedPretraining(_Saved):
    """Of a pretraining.json the form of the input, and which patients were trained on."""

    max_length: Count
    age_unit: AgeUnit
    input_fingerprint: str | None = None
    trained_on: list[_BySeed | _FromInput] | None


class SavedFinetuning(_Saved):
    """Of a finetuning.json the form of the input, and how logits become probabilities."""

    title: str
    min_history: Count
    max_length: Count
    age_unit: AgeUnit
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    bias: Number
    task: dict[str, Any] | str | None  # a dict, but in earlier releases, which have `endpoint` beside it


class SavedTimeToEvent(_Saved):
    """Of the task in a finetuning.json of time to event the days that risks depend on."""

    horizons: Annotated[list[Count], Field(min_length=1)]
    gap_days: Annotated[int, Field(ge=0, le=_MOST)]


Saved = TypeVar("Saved", bound=_Saved)


def checked(path: Path, content: Any, kind: type[Saved]) -> Saved:
    """Return what a file holds.

    Args:
        path: the file, for the error.
        content: what stands in it as JSON, keys by their present names.
        kind: what it should hold.

    Raises:
        InputError: a key is missing or a value is not what it may be.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: is damaged: expected keys and values, got {_short(content)}")
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be", 1)
        if problem["type"] == "missing":
            raise InputError(f"{path}: is damaged: holds no {where}") from None
        if not where:  # of several keys, which the message names
            raise InputError(f"{path}: is damaged: {message}") from None
        raise InputError(f"{path}: is damaged: {where}: {_short(problem['input'])} is not allowed, {message}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
