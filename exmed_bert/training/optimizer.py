"""AdamW for models of many small tensors, where torch's bookkeeping takes longer than the arithmetic."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class FusedAdamW(torch.optim.AdamW):
    """torch's fused AdamW, which collects its tensors once and clips gradients within the step.

    The same numbers as ``torch.nn.utils.clip_grad_norm_`` followed by ``AdamW(fused=True)``, and the same state dict.
    A parameter that had no part in a loss has a gradient of zero, as if it had, where torch's would not touch it.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        """Take what `torch.optim.AdamW` takes."""
        super().__init__(params, fused=True, **options)
        self._collected: list[tuple[dict[str, Any], list[list[Tensor]]]] | None = None

    @torch.no_grad()
    def clip(self, max_norm: float, further: Sequence[Tensor] = ()) -> Tensor:
        """Have the next step scale the gradients to a norm of at most ``max_norm``; return their norm, a scalar.

        Args:
            max_norm: of all gradients together.
            further: parameters that this optimizer does not update, whose gradients count, too.
        """
        gradients = [_gradient(parameter) for group in self.param_groups for parameter in group["params"]]
        gradients += [_gradient(parameter) for parameter in further]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.grad_scale = ((norm + 1e-6) / max_norm).clamp_(min=1.0)  # 1e-6 as torch's clip_grad_norm_
        return norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the parameters from their gradients; the closure that other optimizers take is not called."""
        for group, (parameters, means, squares, steps) in self._collect():
            steps[0] += 1
            torch._fused_adamw_(
                parameters,
                [_gradient(parameter) for parameter in group["params"]],
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=getattr(self, "grad_scale", None),
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state that `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._collected = None

    def _collect(self) -> list[tuple[dict[str, Any], list[list[Tensor]]]]:
        """Return for each group its parameters, means, squares and steps; all parameters share one count of steps."""
        if self._collected is None:
            self._collected = []
            for group in self.param_groups:
                parameters = group["params"]
                taken = self.state[parameters[0]].get("step")
                count = torch.zeros((), device=parameters[0].device) if taken is None else taken
                for parameter in parameters:
                    state = self.state[parameter]
                    state["step"] = count
                    for name in ("exp_avg", "exp_avg_sq"):
                        if name not in state:
                            state[name] = torch.zeros_like(parameter)
                states = [self.state[parameter] for parameter in parameters]
                tensors = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]
                self._collected.append((group, [parameters, *tensors]))
        return self._collected


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
