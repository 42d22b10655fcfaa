"""The Trainer of fine-tuning: evaluations of its objective, early stopping, the best weights, two learning rates."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.finetuning.kept import read_kept, write_kept
from exmed_bert.finetuning.objective import Objective
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.training.trainer import PatientTrainer

BEST = "best.safetensors"  # the weights of the best evaluation so far


def best_step(state: TrainerState, objective: Objective) -> tuple[int, list[int]]:
    """Return the step of the evaluation that the objective ranks first, and all evaluated steps."""
    found = {int(entry["step"]): entry for entry in state.log_history if "eval_loss" in entry}
    return min(found, key=lambda step: (*objective.rank(found[step]), step)), list(found)


class _KeepBest(TrainerCallback):
    """Writes the weights of the best evaluation and stops after some without improvement.

    Everything follows from the history of evaluations, which checkpoints hold, so a resumed run is the same.
    """

    def __init__(self, model: torch.nn.Module, objective: Objective, folder: Path, patience: int) -> None:
        self._model = model
        self._objective = objective
        self._folder = folder
        self._patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        best, found = best_step(state, self._objective)
        if best == state.global_step:
            write_kept(self._folder / BEST, self._model.state_dict(), step=str(best))
        if sum(step > best for step in found) >= self._patience:
            control.should_training_stop = True


class FinetuningTrainer(PatientTrainer):
    """Trains an `ExMedBertForSequenceClassification` on labeled patients."""

    def __init__(
        self,
        model: ExMedBertForSequenceClassification,
        args: TrainingArguments,
        train: LabeledRows,
        validation: LabeledRows,
        collator: PromptCollator,
        objective: Objective,
        *,
        folder: Path,
        head_learning_rate: float,
        patience: int,
    ) -> None:
        """Take what a Trainer takes.

        Args:
            model, args: as a Trainer takes them; ``args.learning_rate`` is the encoder's.
            train, validation: the patients.
            collator: makes batches of both.
            objective: judges evaluations.
            folder: of the run, where the best weights go.
            head_learning_rate: of the parameters that pretraining has not trained.
            patience: evaluations without improvement after which training ends.
        """
        super().__init__(model, args, train, validation, collator)
        self._network, self._validation, self._collator = model, validation, collator
        self._objective = objective
        self._folder = folder
        self._head_learning_rate = head_learning_rate
        self.add_callback(_KeepBest(model, objective, folder, patience))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer, with a learning rate of its own for the head."""
        if self.optimizer is None:
            decaying = set(self.get_decay_parameter_names(self._network))
            head = {id(parameter) for parameter in self._network.head_parameters()}
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self._network.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((id(parameter) in head, name in decaying), []).append(parameter)
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args)
            rates = {True: self._head_learning_rate, False: self.args.learning_rate}
            self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "lr": rates[is_head],
                        "weight_decay": self.args.weight_decay if decays else 0.0,
                    }
                    for (is_head, decays), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Evaluate on the validation patients: the metrics of the objective."""
        found = self._objective.measure(self._validation, self.predict_logits(self._validation))
        result = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(result)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, result)
        return result

    def predict_logits(self, patients: LabeledRows) -> np.ndarray:
        """Return the logits of each patient, as `outcome_model.predict` does."""
        with self.accelerator.autocast():
            return predict(self._network, patients, self._collator, self.args.per_device_eval_batch_size)

    def restore_best(self) -> int:
        """Give the model the weights of its best evaluation; return at which step that was."""
        self._network.load_state_dict(read_kept(self._folder / BEST)[0])
        return best_step(self.state, self._objective)[0]
