"""The arguments of transformers' Trainer that pretraining and fine-tuning share."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from exmed_bert import console


def training_arguments(folder: Path, precision: str, seed: int, **more: Any) -> TrainingArguments:
    """Return the arguments of a run that evaluates and saves by steps and reports through our own callbacks.

    Args:
        folder: of the checkpoints.
        precision: ``fp32`` or ``bf16``.
        seed: of order and dropout.
        more: what differs from run to run.
    """
    has_gpu = torch.cuda.is_available()
    args = TrainingArguments(
        output_dir=str(folder),
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=None,  # our own rotation counts whole checkpoints only
        seed=seed,
        bf16=precision == "bf16",
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        ddp_find_unused_parameters=False,  # all are used at every step
        remove_unused_columns=False,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        run_name=folder.name,
        report_to="none",
        disable_tqdm=True,
        **more,
    )
    if args.n_gpu > 1:
        console.warn(f"{args.n_gpu} GPUs are here and one is used; torchrun or accelerate launch use them all")
        args._n_gpu = 1
    return args
