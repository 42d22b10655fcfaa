"""The model: the original's checkpoint, attention kernels, losses, initialization, Auto classes."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from transformers.models.bert.modeling_bert import BertEncoder

from exmed_bert import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertModel
from exmed_bert.data.masking import IGNORED
from exmed_bert.models.attention import attention_bias
from exmed_bert.models.dropout import add_dropped_out, dropout
from exmed_bert.models.model import sinusoidal_positions

CHECKPOINT = ROOT / "tests" / "fixtures" / "upstream_checkpoint"


def small_model(**changes: object) -> ExMedBertForMaskedLM:
    torch.manual_seed(0)
    sizes = {"code_vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ExMedBertConfig(**sizes | {"intermediate_size": 32, "max_position_embedding": 12} | changes)
    return ExMedBertForMaskedLM(config)


def small_batch(lengths: tuple[int, ...] = (10, 6, 3)) -> dict[str, torch.Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    shape = (len(lengths), max(lengths))
    real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    batch = {
        "input_ids": torch.randint(6, 40, shape, generator=generator),
        "entity_ids": torch.randint(1, 3, shape, generator=generator),
        "age_ids": torch.randint(6, 100, shape, generator=generator),
        "position_ids": torch.arange(1, shape[1] + 1).expand(shape),
        "visit_days": torch.randint(1, 400, shape, generator=generator).cumsum(dim=1),
        "attention_mask": real.long(),
    }
    batch = {name: tensor * real for name, tensor in batch.items()}
    return batch | {"sex_ids": torch.full((shape[0], 1), 6), "state_ids": torch.full((shape[0], 1), 9)}


def test_the_originals_checkpoint_loads_and_gives_its_logits() -> None:
    model, info = ExMedBertForMaskedLM.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    expected = np.load(CHECKPOINT / "expected.npz")
    inputs = {name: torch.tensor(expected[name]) for name in expected if name != "expected_logits"}
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    real = inputs["attention_mask"] == 1
    torch.testing.assert_close(logits[real], torch.tensor(expected["expected_logits"])[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("visit_days", [False, True])
@pytest.mark.parametrize("visit_distance_bias", [False, True])
def test_the_attention_kernels_agree_in_outputs_and_gradients(visit_distance_bias: bool, visit_days: bool) -> None:
    batch = small_batch()
    labels = torch.where(torch.rand(batch["input_ids"].shape) < 0.5, batch["input_ids"], IGNORED)
    results = []
    for kernel in ("sdpa", "eager"):
        sees = {"visit_distance_bias": visit_distance_bias, "visit_days": visit_days, "num_attention_heads": 4}
        model = small_model(**sees).eval()
        model.set_attn_implementation(kernel)
        output = model(**batch, code_labels=labels)
        output.loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((output.masked_logits.detach(), grads))
    for of_kind in zip(*results, strict=True):
        for other in of_kind[1:]:
            torch.testing.assert_close(other, of_kind[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1003, 301, requires_grad=True)
    dropped = dropout(x, probability)
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(round(probability * 256) / 256, abs=5 * (probability / x.numel()) ** 0.5)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert len(dropped.unique()) == 2
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach()), "the same entries, the same scale"
    neighbors = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert neighbors.float().mean().item() == pytest.approx(share**2, rel=0.1), "independent of each other"

    torch.manual_seed(0)
    assert torch.equal(dropout(torch.ones(1003, 301), probability), dropped), "the generator's state decides"
    assert dropout(x, 0.0) is x


def test_dropout_added_to_a_residual_is_the_same_dropout() -> None:
    x, residual = torch.randn(2, 50, 24)
    torch.manual_seed(0)
    expected = residual + dropout(x, 0.1)
    torch.manual_seed(0)
    torch.testing.assert_close(add_dropped_out(residual, x, 0.1), expected)
    assert torch.equal(add_dropped_out(residual, x, 0.0), residual + x)


@pytest.mark.parametrize("only", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_works_in_training_and_rests_in_evaluation(only: str) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = small_model(**off | {only: 0.5})
    model.set_attn_implementation("eager")
    batch = small_batch()
    assert not torch.equal(model.train()(**batch).logits, model(**batch).logits)
    assert torch.equal(model.eval()(**batch).logits, model(**batch).logits)
    without = small_model(**off).train()
    torch.testing.assert_close(without(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("visit_distance_bias", [False, True])
def test_the_encoder_is_berts(visit_distance_bias: bool) -> None:
    """The same weights in transformers' own encoder give the same hidden states and gradients."""
    model = small_model(visit_distance_bias=visit_distance_bias).eval()
    model.set_attn_implementation("eager")
    theirs = BertEncoder(model.config).eval()
    theirs.load_state_dict(model.bert.encoder.state_dict())
    batch = small_batch()
    results = []
    for encoder in (model.bert.encoder, theirs):
        torch.manual_seed(3)
        hidden = torch.randn(3, 10, 24, requires_grad=True)
        output = encoder(hidden, attention_bias(model.config, batch["attention_mask"], batch["position_ids"], hidden))
        output = output if isinstance(output, torch.Tensor) else output.last_hidden_state
        (output * batch["attention_mask"][:, :, None]).square().sum().backward()
        results.append([output.detach(), hidden.grad, *(p.grad for p in encoder.parameters())])
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    batch = small_batch()
    grads = []
    for checkpointing in (False, True):
        model = small_model().train()
        if checkpointing:
            enable = "activation_checkpointing_enable"  # transformers 5.17 has the older name alone
            getattr(model, enable if hasattr(model, enable) else "gradient_checkpointing_enable")()
        torch.manual_seed(5)
        model(**batch, code_labels=batch["input_ids"]).loss.backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*grads)


def test_the_steepest_head_sees_its_own_visit_alone() -> None:
    model = small_model(visit_distance_bias=True).eval()
    model.set_attn_implementation("eager")
    weights: list[torch.Tensor] = []
    attention = model.bert.encoder.layer[0].attention.self
    attention.register_forward_hook(lambda _module, _inputs, output: weights.append(output[1]))
    batch = small_batch((10,))
    visits = torch.tensor([[1, 1, 2, 2, 2, 3, 4, 4, 5, 6]])
    model(**batch | {"position_ids": visits})
    same = (visits[0][:, None] == visits[0][None, :]).float()
    anywhere, nearby = (weights[0][0, head] for head in range(2))
    assert (nearby * same).sum(dim=1).min() > 0.98
    assert (anywhere * same).sum(dim=1).mean() < 0.5

    with pytest.raises(ValueError, match="flash_attention_2"):
        model.config._attn_implementation = "flash_attention_2"
        model(**batch)


def test_distances_between_visits_are_all_that_counts() -> None:
    """Shifting every visit number changes the embeddings alone, and without them nothing."""
    model = small_model(visit_distance_bias=True).eval()
    torch.nn.init.zeros_(model.bert.embeddings.positional_embeddings.weight)
    batch = small_batch((5, 5))
    here, later = (model(**batch | {"position_ids": batch["position_ids"] + shift}).logits for shift in (0, 6))
    torch.testing.assert_close(here, later, atol=1e-5, rtol=0)
    together = model(**batch | {"position_ids": batch["position_ids"].clamp(max=1)}).logits
    assert (here - together).abs().max() > 1e-3
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in small_model().state_dict().items()
    }, "no parameters of its own"


def test_padding_and_company_do_not_change_a_patient() -> None:
    model = small_model(predict_los=True).eval()
    together = small_batch()
    with torch.no_grad():
        whole = model(**together)
        for i, length in enumerate((10, 6, 3)):
            alone = {name: t[i : i + 1, : length if t.shape[1] > 1 else 1] for name, t in together.items()}
            one = model(**alone)
            torch.testing.assert_close(one.logits[0], whole.logits[i, :length], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(one.plos_logits[0], whole.plos_logits[i], atol=1e-5, rtol=1e-4)


def test_logits_at_masked_positions_are_those_of_all_positions() -> None:
    model = small_model().eval()
    batch = small_batch()
    labels = torch.full_like(batch["input_ids"], IGNORED)
    labels[0, 2], labels[1, 5] = 7, 9
    with torch.no_grad():
        masked, every = model(**batch, code_labels=labels), model(**batch).logits
    assert masked.logits is None and every.shape == (3, 10, 40)
    torch.testing.assert_close(masked.masked_logits, torch.stack([every[0, 2], every[1, 5]]))
    expected = torch.nn.functional.cross_entropy(masked.masked_logits, torch.tensor([7, 9]))
    torch.testing.assert_close(masked.loss, expected)


GROUPS = ["icd10cm:E11", "icd10cm:N18"]


def forecasting_model(**changes: object) -> ExMedBertForMaskedLM:
    """Return a model of 40 codes, two groups and death, with random hazards of about one in a thousand days."""
    model = small_model(predict_future_codes=True, hazard_bin_ends=[30.0, 90.0], forecast_groups=GROUPS, **changes)
    head = model.forecast_head
    for parameter in (head.bin_scale, head.bin_shift, head.bin_bias, head.group_rows):
        torch.nn.init.normal_(parameter, std=0.5)
    for parameter in (head.code_bias, head.group_bias):
        torch.nn.init.normal_(parameter, mean=-7)
    return model


def forecast_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ask the first and the last patient what comes: two codes, a group and death, and nothing within 20 days."""
    known = sorted(set(batch["input_ids"][0].tolist()) - {0})
    new = [code for code in range(6, 40) if code not in known][:2]
    targets = [(code, 0) for code in (*known, 40)] + [(new[0], 7), (new[1], 90), (41, 31), (42, 400)]
    ids, days = (torch.full((3, len(targets)), IGNORED) for _ in range(2))
    ids[0], days[0] = torch.tensor(targets).T
    ids[2, 0], days[2, 0] = 9, 0
    observed = torch.tensor([400, IGNORED, 20])
    position = torch.tensor([3, IGNORED, 1])
    return {"query_positions": position, "observed_days": observed, "target_ids": ids, "target_days": days}


def test_the_loss_of_a_forecast_is_the_likelihood_of_each_target_alone() -> None:
    model = forecasting_model().eval()
    batch = small_batch()
    ahead, labels = forecast_inputs(batch), torch.full_like(batch["input_ids"], IGNORED)
    labels[1, 2] = 7
    head, decoder = model.forecast_head, model.code_classifier.predictions.decoder
    expected = 0.0
    with torch.no_grad():
        output, hidden = model(**batch, code_labels=labels, **ahead), model.bert(**batch).last_hidden_state
        for row, column in ((0, 3), (2, 1)):
            states = model.forecast_states(
                hidden[row : row + 1, column], batch["input_ids"][[row]], batch["age_ids"][[row]]
            )
            day_of = dict(zip(ahead["target_ids"][row].tolist(), ahead["target_days"][row].tolist(), strict=True))
            for target in range(6, 43):
                vector = decoder.weight[target] if target < 40 else head.group_rows[target - 40]
                bias = head.code_bias[target] if target < 40 else head.group_bias[target - 40]
                last = day_of.get(target, int(ahead["observed_days"][row]))
                hazards = [
                    math.exp((states[0] * head.bin_scale[k] + head.bin_shift[k]) @ vector + bias + head.bin_bias[k])
                    for k in range(3)
                ]
                of_day = [0] * 30 + [1] * 60 + [2] * 400  # the bin of day 1, day 2, ...
                expected += sum(hazards[k] for k in of_day[:last])
                if day_of.get(target, 0) > 0:
                    expected -= math.log(hazards[of_day[last - 1]])
    assert output.forecast_loss.item() == pytest.approx(expected / 4, rel=1e-5)
    assert output.loss.item() == pytest.approx(output.code_loss.item() + expected / 4, rel=1e-5)


def test_a_forecast_sees_the_codes_that_masks_hide() -> None:
    model = forecasting_model().eval()
    batch = small_batch()
    labels = torch.full_like(batch["input_ids"], IGNORED)
    states = []
    for hidden_code in (7, 8):
        labels[0, 0] = hidden_code
        output = model(**batch, code_labels=labels, **forecast_inputs(batch))
        states.append(output.forecast_loss.item())
    assert states[0] != states[1]


def test_risks_are_those_of_the_hazards() -> None:
    model = forecasting_model().eval()
    head, rows = model.forecast_head, model.code_classifier.predictions.decoder.weight
    with torch.no_grad():
        states = torch.randn(3, 24)
        hazards = head.log_hazards(states, [9, 41], rows).exp()  # (3, code, group and death, 3 bins)
        found = head.log_odds(states, [9, 41], rows, (20.0, 120.0)).sigmoid()
        assert head.log_odds(1e5 * states, [9, 41], rows, (0.0, 120.0)).isfinite().all()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near_one = head.log_odds(1e5 * states, [9, 41], rows, (0.0, 120.0))
        assert near_one.dtype == torch.float32 and near_one.isfinite().all()
    for patient in range(3):
        free, by, at_gap = 1.0, {0: 0.0}, 1.0
        for day in range(1, 121):
            of_both, of_death = hazards[patient, :2].sum(dim=0), hazards[patient, 2]
            k = 0 if day <= 30 else 1 if day <= 90 else 2
            ends = 1 - math.exp(-(of_both[k] + of_death[k]))
            at_gap = free if day <= 21 else at_gap
            by[day] = by[day - 1] + free * ends * float(of_both[k] / (of_both[k] + of_death[k]))
            free *= 1 - ends
        assert found[patient].item() == pytest.approx((by[120] - by[20]) / at_gap, rel=1e-4)


def test_a_history_is_the_sum_of_its_codes_each_counted_once() -> None:
    model = small_model(predict_future_codes=True).eval()
    codes = torch.tensor([[6, 7, 6, 4, 0]])  # 4 is MASK, 0 is padding
    table = model.get_input_embeddings()
    with torch.no_grad():
        bag = model.bag_of_codes(codes, table(codes), torch.tensor([[3, 4, 5, 5, 0]]))
        expected = (table.weight[6] + table.weight[7]) / 8
    torch.testing.assert_close(bag[0, :-1], expected)
    assert bag[0, -1].item() == pytest.approx(10 * 5 / model.config.age_vocab_size)


def test_masked_logits_leave_the_loss_of_forecasts_finite() -> None:
    model = forecasting_model().train()
    model.code_classifier.predictions.mask_logits(torch.tensor([37, 38]), torch.tensor([37]), offset=1.0)
    batch = small_batch()
    output = model(**batch, code_labels=torch.full_like(batch["input_ids"], IGNORED), **forecast_inputs(batch))
    output.loss.backward()
    assert torch.isfinite(output.loss) and output.loss > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (model.code_classifier.predictions.decoder.weight.grad[37:39] == 0).all()


def test_a_loss_in_chunks_is_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = small_batch()
    results = []
    for limit in (10**6, 40):  # all 19 positions at once, or one at a time
        monkeypatch.setattr("exmed_bert.models.model._LOGITS_AT_ONCE", limit)
        model = forecasting_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        output = model(**batch, code_labels=labels, **forecast_inputs(batch))
        output.loss.backward()
        results.append([output.loss, output.forecast_loss, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert (output.masked_logits is None) == (limit < 10**6)
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole)


def test_plos_loss_is_the_weighted_mean_over_known_patients() -> None:
    model = small_model(predict_los=True, plos_weight=(0.25, 1.0)).eval()
    with torch.no_grad():
        output = model(**small_batch(), plos_label=torch.tensor([1, IGNORED, 0]))
    expected = torch.nn.functional.cross_entropy(
        output.plos_logits[[0, 2]], torch.tensor([1, 0]), weight=torch.tensor([0.25, 1.0])
    )
    torch.testing.assert_close(output.loss, expected)


def test_a_batch_without_labels_has_a_zero_loss_that_trains() -> None:
    model = small_model(predict_los=True)
    batch = small_batch()
    nothing = torch.full_like(batch["input_ids"], IGNORED)
    loss = model(**batch, code_labels=nothing, plos_label=torch.full((3,), IGNORED)).loss
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("initialization", ["orthogonal", "normal"])
def test_visit_positions_survive_initialization_and_training(initialization: str) -> None:
    model = small_model(initialization=initialization)
    table = model.bert.embeddings.positional_embeddings.weight
    assert torch.equal(table, model.config.context_scale * sinusoidal_positions(12, 24)) and not table.requires_grad


def test_sinusoids_follow_the_formula() -> None:
    table = sinusoidal_positions(5, 7)
    for position in range(5):
        for i in range(7):
            angle = position / 10_000 ** (2 * (i // 2) / 7)
            expected = np.sin(angle) if i % 2 == 0 else np.cos(angle)
            assert table[position, i].item() == pytest.approx(expected, abs=1e-6)


def test_orthogonal_initialization() -> None:
    model = small_model(initialization="orthogonal")
    weight = model.bert.encoder.layer[0].attention.self.query.weight
    gain = model.config.orthogonal_gain
    torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(24), atol=1e-5, rtol=0)
    codes = model.bert.embeddings.code_embeddings.weight
    assert codes.pow(2).mean().item() == pytest.approx(1.0, abs=1e-4)
    ages = model.bert.embeddings.age_embeddings.weight
    assert ages.pow(2).mean().sqrt().item() == pytest.approx(model.config.context_scale, rel=1e-4)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = small_model(predict_los=True)
    model.save_pretrained(tmp_path)
    again = ExMedBertForMaskedLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert isinstance(AutoModel.from_pretrained(tmp_path), ExMedBertModel)
    assert isinstance(AutoModelForMaskedLM.from_pretrained(tmp_path), ExMedBertForMaskedLM)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), ExMedBertConfig)


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import exmed_bert.models; from transformers import AutoModel",
        "from transformers import AutoModel; import exmed_bert.models",
        "from exmed_bert import ExMedBertConfig; from transformers import AutoModel",
    ],
)
def test_the_auto_classes_know_the_model_once_it_is_imported(imports: str) -> None:
    program = f"folder = {str(CHECKPOINT)!r}; {imports}; print(type(AutoModel.from_pretrained(folder)).__name__)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["ExMedBertModel"], result.stderr


@pytest.mark.slow
def test_the_packages_names_are_listed_before_they_are_loaded() -> None:
    program = (
        "import exmed_bert, sys; print(set(exmed_bert.__all__) <= set(dir(exmed_bert)), 'torch' in sys.modules);"
        "print(exmed_bert.ExMedBertModel.__name__, hasattr(exmed_bert, 'nothing'))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["True", "False", "ExMedBertModel", "False"], result.stderr


def test_importing_the_readers_loads_no_torch() -> None:
    program = (
        "import sys, exmed_bert, exmed_bert.codes, exmed_bert.config, exmed_bert.cli, exmed_bert.data.readers;"
        "import exmed_bert.data.writers;"
        "import exmed_bert.synthetic.generate, exmed_bert.clinvec.reader;"
        "print([m for m in ('torch', 'transformers', 'pandas', 'scipy', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr
