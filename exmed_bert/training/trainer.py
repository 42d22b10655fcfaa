"""transformers' Trainer with our batches, our steps, our evaluation, and checkpoints that appear whole or not."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from exmed_bert.data.batches import BatchedRows, LengthGroupedBatchSampler, MaskedCodeCollator
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.randomness import mix
from exmed_bert.evaluation import masked_codes
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.models.code_tree import BIAS
from exmed_bert.training import checkpoints
from exmed_bert.training.composition import ComposedTables
from exmed_bert.training.optimizer import FusedAdamW

if TYPE_CHECKING:  # what it imports, the trainer does without
    from exmed_bert.training.unseen import UnseenCodes

_EVERY_PROCESS_HAS_THE_MODEL = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_HASHED_AT_ONCE = 2**18  # patients
_CALIBRATED_ON = 500  # training patients at most, at the end; evaluations on the way do with fewer
_CALIBRATED_ON_THE_WAY = 50
KEPT_CHECKPOINTS = 2  # the last one, and the one before in case the last is damaged


def evaluation_sample(dataset: PatientDataset, most: int, seed: int) -> np.ndarray:
    """Return the indices of at most ``most`` patients, drawn by the hash of their ids, in order."""
    if len(dataset) <= most:
        return np.arange(len(dataset))
    rows, draws, first = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64), 0
    for part in dataset.parts():
        hashes = part.columns["patient_hashes"].numpy()
        for start in range(0, len(part), _HASHED_AT_ONCE):
            of_chunk = mix(seed, hashes[start : start + _HASHED_AT_ONCE])
            rows = np.concatenate((rows, np.arange(first + start, first + start + len(of_chunk))))
            draws = np.concatenate((draws, of_chunk))
            smallest = np.argsort(draws, kind="stable")[:most]
            rows, draws = rows[smallest], draws[smallest]
        first += len(part)
    return np.sort(rows)


class _EpochCallback(TrainerCallback):
    """Sets the epoch of sampler and masks before it begins, also on a resume in the middle of one."""

    def __init__(self, *listeners: Any) -> None:
        self._listeners = listeners

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for listener in self._listeners:
            listener.set_epoch(int(state.epoch or 0))


class PatientTrainer(Trainer):
    """The Trainer of pretraining and fine-tuning: batches grouped by length, a lean step, whole checkpoints."""

    model: PreTrainedModel

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        train_dataset: Any,
        eval_dataset: Any,
        collator: Callable[[Any], dict[str, torch.Tensor]],
        *epoch_listeners: Any,
        composed: ComposedTables | None = None,
    ) -> None:
        """Take what a Trainer takes.

        Args:
            model, args: as a Trainer takes them.
            train_dataset, eval_dataset: with ``lengths``, the tokens of each patient, and ``batch(rows)``.
            collator: what a dataset gives for a batch to what the model takes.
            epoch_listeners: their ``set_epoch`` is called with the number of each epoch before it begins.
            composed: the model's tables that are sums of parts, which are trained in their place.
        """
        assert args.output_dir is not None
        self._composed = composed
        self._run = Path(args.output_dir)
        self.sampler = LengthGroupedBatchSampler(train_dataset.lengths, args.per_device_train_batch_size, args.seed)
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, eval_dataset=eval_dataset, data_collator=collator
        )
        self.remove_callback(PrinterCallback)
        self._whole_model = self.accelerator.distributed_type in _EVERY_PROCESS_HAS_THE_MODEL
        if self._whole_model:
            self.optimizer_cls_and_kwargs = (FusedAdamW, {"lr": args.learning_rate})
        self.add_callback(_EpochCallback(self.sampler, *epoch_listeners))
        if composed is not None:
            self.add_callback(composed)
        self.data_wait_seconds = 0.0  # for batches

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of an epoch, grouped by length; each process gets its share, on its device."""
        loader = DataLoader(
            BatchedRows(self.train_dataset),
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        nothing_to_do = self.args.world_size == 1 and self.args.device.type == "cpu"
        return loader if nothing_to_do else self.accelerator.prepare(loader)

    # The Trainer's own step serves every kind of model; its bookkeeping takes as long as a small model computes.

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, torch.Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], None]:
        """Return the batches of a step, and no count of their labels: the model's losses are means already."""
        start = time.perf_counter()
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self.data_wait_seconds += time.perf_counter() - start
        return batches, None

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Go forward and backward through a batch, and return its share of the step's loss, a scalar."""
        if not model.training:
            model.train()
        loss = model(**inputs).loss
        if self.current_gradient_accumulation_steps > 1:
            loss = loss / self.current_gradient_accumulation_steps
        if self._whole_model:
            loss.backward()
        else:
            self.accelerator.backward(loss)
        return loss.detach()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer of all parameters but the tables that are composed, whose parts have their own."""
        optimizer = super().create_optimizer(model)
        apart = set(map(id, self._tables()))
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
        return optimizer

    def _tables(self) -> list[torch.nn.Parameter]:
        return [] if self._composed is None else self._composed.parameters()

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        wrapped = getattr(self.optimizer, "optimizer", None)
        if isinstance(wrapped, FusedAdamW):
            return wrapped.clip(self.args.max_grad_norm, self._tables())
        return super()._clip_grad_norm(model)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the Trainer would count the parameters anew at each step, 5 % of a small model's time."""
        return 0

    def full_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the model's parameters and buffers on the CPU; every process calls this, the first one gets them."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name: tensor.detach().cpu() for name, tensor in (state or {}).items()}

    # Checkpoints: the Trainer writes to a staging folder; the finished checkpoint is renamed into place.

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._run / checkpoints.STAGING)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self.args.should_save:
            shutil.rmtree(self._run / checkpoints.STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has written its random state
        if self.args.should_save:
            name = f"{checkpoints.PREFIX}{self.state.global_step}"
            if self._composed is not None:
                self._composed.save(self._run / checkpoints.STAGING / name)
            checkpoints.publish(self._run, name, KEPT_CHECKPOINTS)
            shutil.rmtree(self._run / checkpoints.STAGING, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._composed is not None:
            self._composed.load(Path(resume_from_checkpoint), self.args)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # The Trainer would add its own arguments as a pickle, which is unsafe to open.
        if self.args.should_save:
            self.model.save_pretrained(output_dir or self._run, state_dict=state_dict)


class PretrainingTrainer(PatientTrainer):
    """Pretrains on a `PatientDataset`; also runs under torchrun and accelerate launch."""

    model: ExMedBertForMaskedLM
    train_dataset: PatientDataset
    eval_dataset: PatientDataset

    def __init__(
        self,
        model: ExMedBertForMaskedLM,
        args: TrainingArguments,
        train_dataset: PatientDataset,
        eval_dataset: PatientDataset,
        eval_max_patients: int,
        unseen: "UnseenCodes | None" = None,
        forecast_prob: float = 0.0,
        composed: ComposedTables | None = None,
    ) -> None:
        """Take what a Trainer takes.

        Args:
            model, args, train_dataset, eval_dataset: as a Trainer takes them.
            eval_max_patients: how many validation patients an evaluation during training looks at; as many training
                patients are compared with them at its end.
            unseen: codes that do not occur in training.
            forecast_prob: share of the patients whose history is cut for a forecast.
            composed: the tables of codes, where they are sums over the trees.
        """
        self._unseen = unseen
        plos = bool(model.config.predict_los)
        self.eval_sample = evaluation_sample(eval_dataset, eval_max_patients, args.seed)
        self.train_sample = evaluation_sample(train_dataset, len(self.eval_sample), args.seed)
        # How many patients evaluations look at must not change what a run ends in.
        self._calibration_samples = [
            evaluation_sample(train_dataset, min(len(eval_dataset), most), args.seed)
            for most in (_CALIBRATED_ON_THE_WAY, _CALIBRATED_ON)
        ]
        self._eval_collator = MaskedCodeCollator(eval_dataset.info, plos, validation=True)
        groups = CodeGroups.of(train_dataset.info.vocabulary, model.config.forecast_groups)
        collator = MaskedCodeCollator(
            train_dataset.info,
            plos,
            forecast_prob=forecast_prob,
            seed=args.seed,
            groups=groups,
            same_fields=args.world_size > 1,
        )
        super().__init__(model, args, train_dataset, eval_dataset, collator, collator, composed=composed)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, and then find out how likely codes are that did not occur."""
        output = super().train(*args, **kwargs)
        if self._unseen is not None:
            if self._composed is None and self._whole_model:
                self._unseen.estimate(self.model, self.args.seed)
            self._calibrate_unseen(self._calibration_samples[1])
        return output

    def _calibrate_unseen(self, sample: np.ndarray) -> None:
        """Lower the logits of codes that did not occur, by what some of the training patients say."""
        if self._unseen is None or not len(self._unseen.ids):
            return
        batches = self._eval_batches(self.train_dataset, sample)
        with self.accelerator.autocast():
            log_odds = self._unseen.log_odds(self.model, batches, self.args.device)
        if self.args.world_size > 1:
            parts: list[Any] = [None] * self.args.world_size
            torch.distributed.all_gather_object(parts, log_odds)
            log_odds = np.concatenate(parts)
        self._unseen.calibrate(log_odds)

    def full_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the model's parameters and buffers as they are to be written, as `PatientTrainer.full_state_dict`."""
        state = super().full_state_dict()
        if state and self._unseen is not None:
            state[BIAS] = self._unseen.lowered(state[BIAS])
        if self._composed is not None:
            self.model.tree_rows = self._composed.learned(self._unseen.offset if self._unseen is not None else 0.0)
        return state

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Evaluate on the sample of validation patients with their fixed masks; all processes get the same metrics."""
        start = time.perf_counter()
        self._calibrate_unseen(self._calibration_samples[0])
        found = self.predict_masked_codes(self.eval_sample)
        summary = masked_codes.summarize(found, self.eval_dataset, self.model.config.plos_weight)
        result = {f"{metric_key_prefix}_{name}": value for name, value in summary.items()}
        seconds = time.perf_counter() - start
        result[f"{metric_key_prefix}_patients_per_second"] = round(len(self.eval_sample) / seconds, 1)
        self.log(result)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, result)
        return result

    def predict_masked_codes(
        self, patients: np.ndarray | None = None, *, in_training: bool = False
    ) -> masked_codes.MaskedCodePredictions:
        """Return what the model says at masked positions, masked as in validation.

        Args:
            patients: rows of the validation patients, or of the training patients; None takes all of them.
            in_training: whether they are training patients.
        """
        dataset = self.train_dataset if in_training else self.eval_dataset
        patients = np.arange(len(dataset)) if patients is None else patients
        with self.accelerator.autocast():
            found = masked_codes.predict(self.model, self._eval_batches(dataset, patients), self.args.device)
        if self.args.world_size == 1:
            return found
        parts: list[Any] = [None] * self.args.world_size
        torch.distributed.all_gather_object(parts, found)
        return masked_codes.merge(parts)

    def validation_batch(self, patients: np.ndarray) -> dict[str, torch.Tensor]:
        """Return validation patients with their fixed masks as the model takes them; ``patients`` are their rows."""
        return self._eval_collator(self.eval_dataset.batch(patients))

    def _eval_batches(self, dataset: PatientDataset, patients: np.ndarray) -> Iterator[dict[str, torch.Tensor]]:
        """Yield this process's batches of the given patients, sorted by length.

        All processes get the same number of batches: where the model is spread over them, they compute together.
        """
        order = patients[np.argsort(dataset.lengths[patients], kind="stable")]
        most = -(-len(order) // self.args.world_size)
        batches = -(-most // self.args.per_device_eval_batch_size)
        for batch in np.array_split(order[self.args.process_index :: self.args.world_size], max(batches, 1)):
            yield self._eval_collator(dataset.batch(batch))
