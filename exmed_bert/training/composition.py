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

from exmed_bert.models.code_tree import CodeTree, TreeRows, sparse_tensor
from exmed_bert.training.optimizer import FusedAdamW

STATE = "code_tree_training.safetensors"  # in a checkpoint: the rows, and what their optimizer knows
_KEPT = ("exp_avg", "exp_avg_sq", "step")

# Weight decay, beside that of all weights, of rows that are a code's alone, so that nodes learn what families have
# in common (cf. Elhussein et al., 2025). Without it novel codes are named less often.
_ALONE_DECAY = 0.3


class ComposedTables(TrainerCallback):
    """Tables of a model's codes that are sums over the trees; a callback of the Trainer that trains the model."""

    def __init__(self, model: nn.Module, rows: Mapping[str, Tensor], tree: CodeTree) -> None:
        """Compose the tables.

        Args:
            model: whose parameters the tables are, (V, d) or (V,) each.
            rows: by the name of a parameter, (N, d) what it is composed of; d is 1 for a vector.
            tree: of the codes.
        """
        self.model, self.tree = model, tree
        self.rows = {name: part.detach() for name, part in rows.items()}
        self._scale = torch.from_numpy(tree.own)[:, None]
        self._above, self._below = sparse_tensor(tree.above), sparse_tensor(tree.above.T.tocsr())
        parents = np.bincount(tree.above.indices, minlength=len(tree.nodes)) > 0
        self._alone = torch.from_numpy(np.flatnonzero(~parents[: len(tree.own)] & (tree.own < 1)))
        self._optimizer: FusedAdamW | None = None
        self.compose()

    @property
    def tables(self) -> dict[str, nn.Parameter]:
        """The tables by name; where the model is spread over processes, its parameters are others than at first."""
        return {name: self.model.get_parameter(name) for name in self.rows}

    @torch.no_grad()
    def compose(self) -> None:
        """Compute the tables from their rows."""
        for name, table in self.tables.items():
            rows, into = self.rows[name], table.data
            composed = torch.addmm(rows[: len(self._scale)] * self._scale, self._above, rows).view(into.shape)
            if isinstance(into, DTensor):
                composed = distribute_tensor(composed, into.device_mesh, into.placements)
            into.copy_(composed)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the rows to the device of the tables; those of a checkpoint are there, and known to the optimizer."""
        if self._optimizer is None:
            self._to(args.device)

    @torch.no_grad()
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step with the rows, once the gradients are clipped, and compose the tables of the next step."""
        if self._optimizer is None:
            self._optimizer = self._new_optimizer(args.weight_decay)
        of_model = kwargs["optimizer"]
        rate = of_model.param_groups[0]["lr"]
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.grad_scale = getattr(getattr(of_model, "optimizer", of_model), "grad_scale", None)
        for name, table in self.tables.items():
            rows, gradient = self.rows[name], table.grad
            assert gradient is not None
            gradient = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            gradient = gradient.view(len(self._scale), -1)
            rows.grad = self._below @ gradient
            rows.grad[: len(gradient)] += gradient * self._scale
            if rows.shape[1] > 1:
                rows[self._alone] *= 1 - rate * _ALONE_DECAY
        self._optimizer.step()
        self.compose()

    def _new_optimizer(self, weight_decay: float) -> FusedAdamW:
        tables = [rows for rows in self.rows.values() if rows.shape[1] > 1]
        vectors = [rows for rows in self.rows.values() if rows.shape[1] == 1]  # do not decay, as a model's
        groups = [{"params": tables, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return FusedAdamW([group for group in groups if group["params"]])

    def _to(self, device: torch.device) -> None:
        self._scale, self._above, self._below, self._alone = (
            tensor.to(device) for tensor in (self._scale, self._above, self._below, self._alone)
        )
        self.rows = {name: rows.to(device) for name, rows in self.rows.items()}

    def learned(self, offset: float) -> TreeRows:
        """Return the rows; ``offset`` is that of the logits of codes that training never met."""
        tables = {name: rows.detach().cpu().float().numpy() for name, rows in self.rows.items()}
        return TreeRows(self.tree.nodes, tables, offset)

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the rows and the state of their optimizer."""
        content = dict(self.rows)
        if self._optimizer is not None:
            for name, rows in self.rows.items():
                content |= {f"{name}.{kept}": self._optimizer.state[rows][kept].clone() for kept in _KEPT}
        save_file({name: tensor.cpu().contiguous() for name, tensor in content.items()}, folder / STATE)

    def load(self, folder: Path, args: TrainingArguments) -> None:
        """Read what `save` wrote."""
        content = {name: tensor.to(args.device) for name, tensor in load_file(folder / STATE).items()}
        self._to(args.device)
        self.rows = {name: content[name] for name in self.rows}
        self._optimizer = self._new_optimizer(args.weight_decay)
        for name, rows in self.rows.items():
            if f"{name}.step" in content:
                self._optimizer.state[rows] = {kept: content[f"{name}.{kept}"] for kept in _KEPT}
        self.compose()
