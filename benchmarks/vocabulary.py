"""Measure training steps of the original's sizes with vocabularies of 1,000 to 500,000 codes, each in a process.

    python benchmarks/vocabulary.py                       # a minute on two cores, 8 GiB
    python benchmarks/vocabulary.py --codes 1000,30000

The softmax is over all codes; where logits would take more than 64 MiB, the loss is computed in chunks of positions
(`exmed_bert.models.model`). Both tables of codes, the embeddings and the head's, have gradients and moments of all
their rows. What codes that are sums over trees take beside it is measured with trees as wide as those of the code
systems: ten codes to a parent, and fifty parents to a chapter.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from common import Measurement, at_least_one, load_average, report

if TYPE_CHECKING:
    from exmed_bert.models.code_tree import CodeTree

CODES = (1_000, 30_000, 100_000, 500_000)
BATCH = 16


def peak_memory() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(codes: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each step, those of its optimizer among them, and the memory."""
    import torch
    from gpu_training import configuration, draw_patients

    from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
    from exmed_bert.models import ExMedBertForMaskedLM
    from exmed_bert.training.hardware import StepShape, hardware_settings
    from exmed_bert.training.optimizer import FusedAdamW

    dataset = draw_patients(50 * BATCH, codes)
    before = peak_memory()
    start = time.perf_counter()
    model = ExMedBertForMaskedLM(configuration(dataset.info, False)).train()
    model.set_attn_implementation("eager")
    found = {"making": [time.perf_counter() - start], "made": [peak_memory()], "imports": [before]}
    optimizer = FusedAdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    collator = MaskedCodeCollator(dataset.info, False)
    batches = [collator(dataset.batch(rows)) for rows in LengthGroupedBatchSampler(dataset.lengths, BATCH, 0)]
    mean = sum(int(batch["attention_mask"].sum()) for batch in batches) / len(batches)
    batches.sort(key=lambda batch: abs(int(batch["attention_mask"].sum()) - mean))  # the average batch first
    steps, updates = [], []
    shape = StepShape(round(mean), model.config.hidden_size, model.config.intermediate_size)
    with hardware_settings(shape, "fp32"):
        for batch in batches[: repeats + 1]:
            start = time.perf_counter()
            loss = model(**batch).loss
            loss.backward()
            computed = time.perf_counter()
            optimizer.clip(1.0)
            optimizer.step()
            optimizer.zero_grad()
            steps.append(time.perf_counter() - start)
            updates.append(time.perf_counter() - computed)
    found |= {"step": steps[1:], "update": updates[1:], "peak": [peak_memory()]}
    found["composing"] = composing(model, optimizer, repeats)
    found["tables"] = [
        16 * sum(p.numel() for p in model.parameters() if len(p) == len(dataset.info.vocabulary)) / 2**20
    ]
    assert torch.isfinite(loss)
    return found


def tree(ids: int) -> "CodeTree":
    """Return trees above so many ids: each a sum of its own row, its parent's and its chapter's."""
    import numpy as np
    from scipy.sparse import csr_matrix

    from exmed_bert.models.code_tree import CodeTree

    parents = ids + np.arange(ids) // 10
    chapters = parents.max() + 1 + np.arange(ids) // 500
    columns = np.stack((parents, chapters), axis=1).ravel()
    nodes = int(chapters.max()) + 1
    above = csr_matrix((np.full(2 * ids, 0.5), columns, np.arange(0, 2 * ids + 1, 2)), shape=(ids, nodes))
    return CodeTree(tuple(map(str, range(nodes))), np.full(ids, 0.5**0.5, dtype=np.float32), above)


def composing(model: Any, optimizer: Any, repeats: int) -> list[float]:
    """Return the seconds that the codes' sums take, a step: rows updated, tables composed."""
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from exmed_bert.models.code_tree import CODE_TABLES
    from exmed_bert.training.composition import ComposedTables

    tables = {name: model.get_parameter(name) for name in CODE_TABLES}
    trees = tree(len(tables[CODE_TABLES[0]]))
    rows = {name: torch.zeros(len(trees.nodes), table[0].numel()) for name, table in tables.items()}
    composed = ComposedTables(model, rows, trees)
    for table in tables.values():
        table.grad = torch.randn_like(table)
    seconds, state, control = [], TrainerState(), TrainerControl()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, use_cpu=True, report_to=[])
    for _ in range(repeats + 1):
        start = time.perf_counter()
        composed.on_pre_optimizer_step(arguments, state, control, optimizer=optimizer)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    """Measure each vocabulary in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=at_least_one, default=5, help="steps that count [default: 5]")
    parser.add_argument("--codes", default=",".join(map(str, CODES)), help=f"[default: {','.join(map(str, CODES))}]")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.repeats)))
        return
    load, figures = load_average(), []
    for codes in map(int, given.codes.split(",")):
        command = [sys.executable, __file__, "--only", str(codes), "--repeats", str(given.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr}Error: {codes:,} codes: exit code {done.returncode}")
        found = json.loads(done.stdout.splitlines()[-1])
        figures += [
            Measurement(f"{codes:,} codes: step of {BATCH} patients", found["step"], "s"),
            Measurement(f"{codes:,} codes: of that the optimizer", found["update"], "s"),
            Measurement(f"{codes:,} codes: beside the step, the codes' sums", found["composing"], "s"),
            Measurement(f"{codes:,} codes: making the model", found["making"], "s"),
            Measurement(f"{codes:,} codes: tables, gradients and moments", found["tables"], "MiB"),
            Measurement(f"{codes:,} codes: peak memory", found["peak"], "MiB"),
            Measurement(f"{codes:,} codes: peak memory, model made", found["made"], "MiB"),
        ]
    figures.append(Measurement("peak memory, imports and patients alone", found["imports"], "MiB"))
    del given.only
    report("vocabulary", given, load, figures)


if __name__ == "__main__":
    main()
