"""Training of code tables whose rows are sums: gradients reach the rows of codes and of the nodes above them.

The model keeps plain tables, which are what it computes with and what is written. The rows that they are composed of
are the parameters of an optimizer of their own, which steps together with the model's; then the tables are composed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from exmed_bert.models.code_tree import CodeTree, RowSums, TreeRows
from exmed_bert.training.optimizer import FusedAdamW

STATE = "code_tree_training.safetensors"  # in a checkpoint: the rows, and what their optimizer knows
_MOMENTS = ("exp_avg", "exp_avg_sq")

# Weight decay, beside that of all weights, of rows that are a code's alone, so that nodes learn what families have
# in common (cf. Elhussein et al., 2025). Without it novel codes are named less often.
_ALONE_DECAY = 0.3


class ComposedTables(TrainerCallback):
    """Tables of a model's codes that are sums over the trees; a callback of the Trainer that trains the model.

    The rows of all tables lie beside each other in one matrix: a step is one sparse product back, an update, and one
    product forward, however many tables there are.
    """

    def __init__(self, model: nn.Module, rows: Mapping[str, Tensor], tree: CodeTree) -> None:
        """Compose the tables.

        Args:
            model: whose parameters the tables are, (V, d) or (V,) each.
            rows: by the name of a parameter, (N, d) what it is composed of; d is 1 for a vector.
            tree: of the codes.
        """
        self.model, self.tree = model, tree
        self._widths = {name: part.shape[1] for name, part in rows.items()}
        self._rows = torch.cat([part.detach() for part in rows.values()], dim=1)
        self._scale = torch.from_numpy(tree.own)[:, None]
        self._above, self._below = RowSums(tree.above), RowSums(tree.above.T.tocsr())
        parents = np.bincount(tree.above.indices, minlength=len(tree.nodes)) > 0
        alone = torch.zeros(len(tree.nodes), 1)
        alone[: len(tree.own)][torch.from_numpy(~parents[: len(tree.own)] & (tree.own < 1))] = 1.0
        self._alone = alone
        self._no_vector = torch.cat([torch.full((width,), float(width > 1)) for width in self._widths.values()])
        self._decay: Tensor | None = None  # (N, all widths), of each number per step and unit of the learning rate
        self._optimizer: FusedAdamW | None = None
        self._parameters: list[nn.Parameter] = []  # of the training
        self.compose()

    @property
    def rows(self) -> dict[str, Tensor]:
        """What the tables are composed of, by their names, (N, d) views."""
        return self._split(self._rows)

    def parameters(self) -> list[nn.Parameter]:
        """Return the tables; of a model that is spread over processes they are others than before."""
        return self._parameters or [self.model.get_parameter(name) for name in self._widths]

    @torch.no_grad()
    def compose(self) -> None:
        """Compute the tables from their rows."""
        composed = self._above(self._rows).addcmul_(self._rows[: len(self._scale)], self._scale)
        for table, part in zip(self.parameters(), self._split(composed).values(), strict=True):
            into = table.data
            part = part.reshape(into.shape)
            if isinstance(into, DTensor):
                part = distribute_tensor(part, into.device_mesh, into.placements)
            into.copy_(part)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the rows to the device of the tables; those of a checkpoint are there, and known to the optimizer."""
        if self._optimizer is None:
            self._to(args.device)
        self._parameters = self.parameters()  # looking them up takes a small model a twentieth of a step

    @torch.no_grad()
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step with the rows, once the gradients are clipped, and compose the tables of the next step."""
        if self._optimizer is None:
            self._optimizer = FusedAdamW([self._rows], weight_decay=0.0)
        if self._decay is None:
            self._decay = (args.weight_decay + _ALONE_DECAY * self._alone) * self._no_vector
        of_model = kwargs["optimizer"]
        (group,) = self._optimizer.param_groups
        group["lr"] = of_model.param_groups[0]["lr"]
        self._optimizer.grad_scale = getattr(getattr(of_model, "optimizer", of_model), "grad_scale", None)
        gradient = torch.cat([_gradient(table) for table in self.parameters()], dim=1)
        self._rows.grad = self._below(gradient)
        self._rows.grad[: len(gradient)].addcmul_(gradient, self._scale)
        self._rows.addcmul_(self._rows, self._decay, value=-group["lr"])
        self._optimizer.step()
        self.compose()

    def _split(self, matrix: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._widths, matrix.split(list(self._widths.values()), dim=1), strict=True))

    def _to(self, device: torch.device) -> None:
        self._rows, self._scale, self._alone, self._no_vector = (
            tensor.to(device) for tensor in (self._rows, self._scale, self._alone, self._no_vector)
        )
        self._above.to(device)
        self._below.to(device)

    def learned(self, offset: float) -> TreeRows:
        """Return the rows; ``offset`` is that of the logits of codes that training never met."""
        tables = {name: rows.detach().cpu().float().contiguous().numpy() for name, rows in self.rows.items()}
        return TreeRows(self.tree.nodes, tables, offset)

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the rows and the state of their optimizer."""
        content = self.rows
        if self._optimizer is not None:
            state = self._optimizer.state[self._rows]
            for kept in _MOMENTS:
                content |= {f"{name}.{kept}": part for name, part in self._split(state[kept]).items()}
            content |= {f"{name}.step": state["step"].clone() for name in self._widths}
        save_file({name: tensor.cpu().contiguous() for name, tensor in content.items()}, folder / STATE)

    def load(self, folder: Path, args: TrainingArguments) -> None:
        """Read what `save` wrote."""
        content = load_file(folder / STATE)
        self._rows = torch.cat([content[name] for name in self._widths], dim=1)
        self._to(args.device)
        self._optimizer = FusedAdamW([self._rows], weight_decay=0.0)
        first = next(iter(self._widths))
        if f"{first}.step" in content:
            moments = {kept: torch.cat([content[f"{n}.{kept}"] for n in self._widths], dim=1) for kept in _MOMENTS}
            state = moments | {"step": content[f"{first}.step"]}
            self._optimizer.state[self._rows] = {name: tensor.to(args.device) for name, tensor in state.items()}
        self.compose()


def _gradient(table: nn.Parameter) -> Tensor:
    """Return the whole gradient of a table, (V, d)."""
    gradient = table.grad
    assert gradient is not None
    gradient = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return gradient.view(len(gradient), -1)
