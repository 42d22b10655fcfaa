"""Days between visits in the model: differences alone count, and what only they tell is learned."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import Tensor
from transformers import AutoModelForMaskedLM

from exmed_bert import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import MASK

SHORT, LONG = 8, 9  # the codes that only the days tell apart


def model_of(**changes: object) -> ExMedBertForMaskedLM:
    torch.manual_seed(0)
    sizes = {"code_vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = ExMedBertConfig(
        **sizes, intermediate_size=32, max_position_embedding=16, **{"visit_distance_bias": True} | changes
    )
    model = ExMedBertForMaskedLM(config)
    model.set_attn_implementation("eager")
    return model


def batch_of(days: Tensor) -> dict[str, Tensor]:
    """Return patients who differ in the days of their visits alone, one code each: (B, L) days."""
    codes = torch.arange(days.shape[1]).remainder(6).add(6).expand(days.shape)
    visits = torch.arange(1, days.shape[1] + 1).expand(days.shape)
    ages = torch.full_like(days, 50)
    return {"input_ids": codes, "entity_ids": torch.ones_like(days), "age_ids": ages} | {
        "visit_ids": visits,
        "attention_mask": torch.ones_like(days),
        "visit_days": days,
    }


@torch.no_grad()
def test_days_between_visits_change_what_comes_out_and_dates_do_not() -> None:
    ten_days, five_years = torch.arange(10)[None], torch.arange(10)[None] * 200
    for changes in ({}, {"visit_distance_bias": False}):
        model = model_of(visit_days=True, **changes).eval()
        near, far, later = (model(**batch_of(days)).logits for days in (ten_days, five_years, five_years + 9_999))
        assert (near - far).abs().max() > 1e-2
        assert torch.equal(far, later)
    blind = model_of().eval()
    without = {name: tensor for name, tensor in batch_of(ten_days).items() if name != "visit_days"}
    assert torch.equal(blind(**batch_of(ten_days)).logits, blind(**batch_of(five_years)).logits)
    assert torch.equal(blind(**without).logits, blind(**batch_of(five_years)).logits)
    with pytest.raises(TypeError, match="visit_days"):
        model(**without)


@torch.no_grad()
def test_padding_does_not_change_a_patients_days() -> None:
    model = model_of(visit_days=True).eval()
    both = batch_of(torch.tensor([[0, 5, 300, 301, 900], [0, 40, 41, 0, 0]]))
    both["attention_mask"][1, 3:] = 0
    both = {name: tensor * both["attention_mask"] for name, tensor in both.items()}
    alone = model(**{name: tensor[1:, :3] for name, tensor in both.items()}).logits
    torch.testing.assert_close(model(**both).logits[1, :3], alone[0], atol=1e-5, rtol=1e-4)


def test_a_model_that_sees_days_is_saved_and_loaded(tmp_path: Path) -> None:
    model = model_of(visit_days=True).eval()
    model.save_pretrained(tmp_path)
    batch = batch_of(torch.tensor([[0, 5, 300]]))
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert loaded.config.visit_days and torch.allclose(model(**batch).logits, loaded(**batch).logits, atol=1e-6)
    original = ExMedBertForMaskedLM.from_pretrained(ROOT / "tests" / "fixtures" / "upstream_checkpoint")
    assert not original.config.visit_days


def draw(n: int, gap: bool, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Return n patients of six visits, the last code hidden: SHORT or LONG, about as often, which only days tell.

    Either those since the visit before decide, or those since the third visit, which has a code of its own.
    """
    steps = 1 + 2 ** torch.randint(0, 12, (n, 6), generator=generator) // 2
    days = steps.cumsum(dim=1) - steps[:, :1]
    short = steps[:, -1] < 20 if gap else days[:, -1] - days[:, 2] < 256
    batch = batch_of(days)
    batch["input_ids"] = torch.tensor([6, 6, 11, 6, 6, MASK]).repeat(n, 1)
    labels = torch.full_like(days, IGNORED)
    labels[:, -1] = torch.where(short, SHORT, LONG)
    return batch, labels


@pytest.mark.parametrize("gap", [True, False])
@pytest.mark.parametrize("sees_days", [True, False])
def test_what_only_the_days_tell_is_learned_from_them_alone(gap: bool, sees_days: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    model = model_of(visit_days=sees_days, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        batch, labels = draw(64, gap, generator)
        model(**batch, code_labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    batch, labels = draw(1000, gap, generator)
    with torch.no_grad():
        found = model.eval()(**batch, code_labels=labels).masked_logits.argmax(dim=1)
    accuracy = float((found == labels[:, -1]).float().mean())
    assert accuracy > 0.95 if sees_days else 0.4 < accuracy < 0.6, accuracy
