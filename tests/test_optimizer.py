"""FusedAdamW against torch's own clipping and AdamW."""

import copy

import pytest
import torch

from exmed_bert.training.optimizer import FusedAdamW

SHAPES = ((7, 3), (5,), (), (2, 2, 2))
OPTIONS = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6}


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups(of: list[torch.nn.Parameter]) -> list[dict[str, object]]:
    return [{"params": of[:2], "weight_decay": 0.1}, {"params": of[2:], "weight_decay": 0.0}]


def give_gradients(to: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator(torch.get_default_device()).manual_seed(step)
    for parameter in to:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10 ** (1 - step)


def test_it_steps_as_torch_clips_and_steps() -> None:
    ours, theirs = parameters(), parameters()
    fused, plain = FusedAdamW(groups(ours), **OPTIONS), torch.optim.AdamW(groups(theirs), **OPTIONS)
    for step in range(4):  # the norms fall from far above the limit to far below
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for optimizer in (fused, plain):
            optimizer.param_groups[0]["lr"] = 0.05 / (step + 1)  # a schedule
        norms = fused.clip(1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        fused.step()
        plain.step()
        torch.testing.assert_close(*norms)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_a_parameter_without_a_gradient_has_one_of_zero() -> None:
    none, zero = parameters(), parameters()
    optimizers = [FusedAdamW(groups(of), **OPTIONS) for of in (none, zero)]
    for step in range(3):
        for of, absent, optimizer in zip((none, zero), (None, torch.zeros_like(zero[0])), optimizers, strict=True):
            give_gradients(of, step)
            if step == 1:
                of[0].grad = absent
            optimizer.clip(1.0)
            optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(none, zero, strict=True))


@pytest.mark.parametrize("written_by", [FusedAdamW, torch.optim.AdamW])
def test_it_goes_on_from_a_saved_state(written_by: type[torch.optim.Optimizer]) -> None:
    whole, first = parameters(), parameters()
    expected, before = FusedAdamW(groups(whole), **OPTIONS), written_by(groups(first), **OPTIONS)
    for step in range(2):
        for of, optimizer in ((whole, expected), (first, before)):
            give_gradients(of, step)
            optimizer.step()
    second = copy.deepcopy(first)
    after = FusedAdamW(groups(second), **OPTIONS)
    give_gradients(second, 9)
    after.step()  # what it holds gives way to what is loaded
    with torch.no_grad():
        for one, other in zip(second, first, strict=True):
            one.copy_(other)
    after.load_state_dict(before.state_dict())
    for of, optimizer in ((whole, expected), (second, after)):
        give_gradients(of, 2)
        optimizer.step()
    for one, other in zip(whole, second, strict=True):
        torch.testing.assert_close(one, other)
    assert {float(state["step"]) for state in after.state.values()} == {3.0}
