"""Show what starting codes from their relatives buys, on embeddings of the code trees and the synthetic population.

    python benchmarks/novel_codes.py                    # all three, up to half an hour
    python benchmarks/novel_codes.py --parts truth      # one of truth, convergence, novel
    python benchmarks/novel_codes.py --quick            # a check of the program itself, keeps no results

The embeddings are those of scripts/make_hierarchy_embeddings.py; they are not ClinVec, and were made from the same
trees along which codes are estimated. A figure's samples are one a seed, its interval is that of their mean (95 %, t).

* truth: a tenth of the codes is held out. Each is estimated from those that are left; the figure is the median cosine
  to its true vector. Beside it: the vector of the nearest ancestor alone, the mean of the siblings alone, the vector of
  any code. Who has no answer for a code (no ancestor, no sibling) scores 0.
* convergence: pretraining on 1 %, 10 % and 100 % of 20,000 patients from a random start and from the embeddings, with
  the demonstration's model, and the validation loss on 1,000 other patients 24 times a run. The figure is the step at
  which the second run first reaches the loss with which the first one ends, as a share of that run's steps;
  interpolated between evaluations; 1 where it never does, and how often that is.
* novel: pretraining on 2,000 patients, and what the model then says at masked novel codes of the 23,000 others, by how
  often the code occurs in training. Chance is 10 codes of the vocabulary.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import Measurement, generate, load_average, report
from runs import DEMO, Model, pretrain
from scipy.stats import t as student

PARTS = ("truth", "convergence", "novel")
MODEL = Model(DEMO.layers, DEMO.hidden, DEMO.heads, DEMO.feed_forward, batch=16)
PATIENTS, MAX_LENGTH = 20_000, 80
POPULATION = 7  # seed; what the start does by default was chosen on the population of seed 42
STEPS = {0.01: 600, 0.1: 1500, 1.0: 2000}  # of the share of the patients that is trained on
SEEDS = {0.01: 5, 0.1: 5, 1.0: 3}
OTHERS = 5000  # patients beyond those trained on
EVALUATIONS = 24
OCCURRENCES = {"0": (0, 0), "1-2": (1, 2), "3-10": (3, 10)}
WAYS = ("random", "hierarchical", "hierarchical, head drawn apart")


def interval(samples: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean."""
    if len(samples) < 2:
        return samples[0], samples[0]
    half = student.ppf(0.975, len(samples) - 1) * statistics.stdev(samples) / math.sqrt(len(samples))
    return statistics.mean(samples) - half, statistics.mean(samples) + half


def figure(name: str, samples: list[float], unit: str, **target: float) -> Measurement:
    """Return a figure whose name tells the interval of the mean."""
    low, high = interval(samples)
    return Measurement(
        f"{name} (mean {statistics.mean(samples):.3g}, {low:.3g} to {high:.3g})", samples, unit, **target
    )


def truth(seed: int) -> dict[str, dict[str, float]]:
    """Return for each code system the median cosine of each way to the vectors that were held out."""
    from exmed_bert.clinvec.hierarchy import make
    from exmed_bert.clinvec.initialization import initialize_from
    from exmed_bert.codes import parent

    made = make(128, 0.1, seed)
    known = [key for key, out in zip(made.keys, made.held_out, strict=True) if not out]
    table = made.vectors[~made.held_out]
    row = {key: i for i, key in enumerate(known)}
    children: dict[Any, list[int]] = {}
    for i, (system, code) in enumerate(known):
        children.setdefault((system, parent(code, system)), []).append(i)
    held = [key for key, out in zip(made.keys, made.held_out, strict=True) if out]
    true = made.vectors[made.held_out]
    ids, (vectors,), origins, _ = initialize_from(held, known, [table], True, seed)
    ours = np.zeros_like(true)
    ours[ids] = vectors
    nothing = np.zeros(table.shape[1], np.float32)
    ancestor = np.array(
        [
            table[row[system, origin.ancestor]] if origin.ancestor else nothing
            for (system, _), origin in zip(held, origins, strict=True)
        ]
    )
    families = [children.get((system, parent(code, system))) if parent(code, system) else None for system, code in held]
    siblings = np.array([table[rows].mean(axis=0) if rows else nothing for rows in families])
    anyone = table[np.random.default_rng(seed).integers(0, len(table), len(held))]
    found: dict[str, dict[str, float]] = {}
    systems, hows = np.array([system for system, _ in held]), np.array([origin.how for origin in origins])
    for system in ("icd10cm", "atc"):
        of_system = systems == system
        for name, estimate in (
            ("ours", ours), ("ancestor alone", ancestor), ("siblings alone", siblings), ("random", anyone)
        ):  # fmt: skip
            found.setdefault(system, {})[name] = _median_cosine(estimate[of_system], true[of_system])
        for how in ("ancestor", "siblings", "chapter"):
            chosen = of_system & (hows == how)
            if chosen.sum() >= 3:
                found[system][f"ours, from {how} ({system})"] = _median_cosine(ours[chosen], true[chosen])
    return found


def _median_cosine(estimates: np.ndarray, true: np.ndarray) -> float:
    lengths = np.linalg.norm(estimates, axis=1) * np.linalg.norm(true, axis=1)
    return float(np.median((estimates * true).sum(axis=1) / lengths.clip(1e-12)))


def truth_figures(seeds: int, **_: Any) -> list[Measurement]:
    """Return the figures of the first part."""
    samples = [truth(seed) for seed in range(1, seeds + 1)]
    figures = []
    for system in ("icd10cm", "atc"):
        ours = [sample[system]["ours"] for sample in samples]
        best = [max(v for k, v in sample[system].items() if not k.startswith("ours")) for sample in samples]
        names = dict.fromkeys(name for sample in samples for name in sample[system])
        figures += [
            figure(f"truth, {system}: {name}", [s[system][name] for s in samples if name in s[system]], "cosine")
            for name in names
        ]
        gain = [a - b for a, b in zip(ours, best, strict=True)]
        figures.append(figure(f"truth, {system}: ours minus the best other", gain, "cosine", at_least=0))
    return figures


def datasets(folder: Path, share: float, patients: int) -> dict[str, Path]:
    """Convert the patients, with a share of them to train on; return the settings that name the files."""
    from exmed_bert.data.convert import convert
    from exmed_bert.settings import ConvertSettings

    of_all = share * patients / (patients + OTHERS)
    output = folder / f"share_{share}.pt"
    source = folder / "patients.jsonl"
    made = convert(ConvertSettings(input=source, output=output, max_length=MAX_LENGTH, train_ratio=of_all))
    return {"training_data": made.paths["train"], "validation_data": made.paths["val"]}


def start(way: str, embeddings: Path) -> dict[str, Any]:
    """Return the settings of a start."""
    if way == "random":
        return {}
    given = {"use_clinvec": True, "clinvec_dir": embeddings, "resize_if_needed": True, "resize_method": "pca"}
    return given | {"use_hierarchical_init": True}


def curve(job: tuple[str, int, int], folder: Path, paths: dict[str, Path]) -> list[tuple[int, float]]:
    """Pretrain and return (step, validation loss) of each evaluation."""
    import torch

    torch.set_num_threads(1)
    way, seed, steps = job
    run = folder / f"{way}_{seed}_{steps}"
    pretrain(
        MODEL, run, **paths, **start(way, folder / "embeddings"), seed=seed, max_steps=steps, plos=False,
        eval_steps=steps // EVALUATIONS, save_steps=steps, eval_max_patients=1000,
    )  # fmt: skip
    state = json.loads((run / "model" / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    return [(entry["step"], entry["eval_loss"]) for entry in state["log_history"] if "eval_loss" in entry]


def reached(losses: list[tuple[int, float]], goal: float) -> float:
    """Return the first step, interpolated, at which the loss is at most ``goal``; the last step where it never is."""
    before = losses[0]
    for step, loss in losses:
        if loss <= goal:
            fall = before[1] - loss
            return step - (step - before[0]) * ((goal - loss) / fall if fall > 0 else 0)
        before = step, loss
    return losses[-1][0]


def convergence_figures(
    folder: Path, pool: ProcessPoolExecutor, patients: int, quick: bool, **_: Any
) -> list[Measurement]:
    """Return the figures of the second part."""
    figures = []
    for share, steps in STEPS.items():
        seeds = range(1, 3 if quick else SEEDS[share] + 1)
        steps = steps // 15 if quick else steps
        paths = datasets(folder, share, patients)
        jobs = [(way, seed, steps) for seed in seeds for way in WAYS[:2]]
        curves = dict(zip(jobs, pool.map(partial(curve, folder=folder, paths=paths), jobs), strict=True))
        name, shares, lost, ends = f"convergence, {share:.0%} of {patients:,}", [], 0, []
        for seed in seeds:
            random, hierarchical = (curves[way, seed, steps] for way in WAYS[:2])
            goal = random[-1][1]
            shares.append(reached(hierarchical, goal) / steps)
            lost += min(loss for _, loss in hierarchical) > goal
            ends.append(hierarchical[-1][1] - goal)
        target = {"at_most": 2 / 3} if share < 1 else {}
        figures.append(figure(f"{name}: steps, as a share of the random start's {steps:,}", shares, "share", **target))
        figures.append(Measurement(f"{name}: seeds of {len(seeds)} that never reach it", [lost], "seeds"))
        figures.append(figure(f"{name}: loss at the end, minus the random start's", ends, "nats"))
    return figures


def novel(job: tuple[str, int], folder: Path, paths: dict[str, Path], quick: bool) -> dict[str, float]:
    """Pretrain and return what the model says at masked novel codes of the validation patients."""
    import torch

    from exmed_bert.data.batches import MaskedCodeCollator
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.evaluation import masked_codes
    from exmed_bert.models import ExMedBertForMaskedLM
    from exmed_bert.training import initial_model as starts

    torch.set_num_threads(1)
    way, seed = job
    run = folder / f"novel_{way}_{seed}"
    if way == WAYS[2]:
        starts.align_head = lambda model: None
    else:
        starts.align_head = _ALIGN or starts.align_head
    steps = 100 if quick else STEPS[0.1]
    never = 10**9
    pretrain(
        MODEL, run, **paths, **start(way, folder / "embeddings"), seed=seed, max_steps=steps, plos=False,
        eval_steps=never, save_steps=never, eval_max_patients=100,
    )  # fmt: skip
    train, val = (PatientDataset.load(path) for path in paths.values())
    model = ExMedBertForMaskedLM.from_pretrained(run / "model")
    collator = MaskedCodeCollator(val.info, False, validation=True)
    order = np.argsort(val.lengths, kind="stable")
    batches = (collator(val.batch(batch)) for batch in np.array_split(order, -(-len(order) // 64)))
    found = masked_codes.predict(model, batches, torch.device("cpu"))
    counts = train.code_counts[found.labels]
    is_novel = np.isin(found.labels, val.novel_ids)
    result = {"chance": 10 / (train.code_counts > 0).size}
    for name, (least, most) in OCCURRENCES.items():
        chosen = is_novel & (counts >= least) & (counts <= most)
        result[f"{name} number"] = int(chosen.sum())
        result[f"{name} top 10"] = float((found.ranks[chosen] < 10).mean())
        result[f"{name} loss"] = float(found.losses[chosen].mean())
    others = ~is_novel
    result["others top 1"] = float((found.ranks[others] < 1).mean())
    result["others loss"] = float(found.losses[others].mean())
    return result | {"all loss": float(found.losses.mean())}


_ALIGN: Callable[..., None] | None = None


def _remember_align() -> None:
    global _ALIGN
    from exmed_bert.training import initial_model as starts

    _ALIGN = starts.align_head


def novel_figures(
    folder: Path, pool: ProcessPoolExecutor, patients: int, quick: bool, seeds: int, **_: Any
) -> list[Measurement]:
    """Return the figures of the third part."""
    paths = datasets(folder, 0.1, patients)
    jobs = [(way, seed) for way in WAYS for seed in range(1, seeds + 1)]
    found = dict(zip(jobs, pool.map(partial(novel, folder=folder, paths=paths, quick=quick), jobs), strict=True))
    chance = found[jobs[0]]["chance"]
    figures = [Measurement("novel: chance, top 10", [chance], "share")]
    names = [name for name in found[jobs[0]] if name != "chance"]
    for name in names:
        for way in WAYS:
            samples = [found[way, seed][name] for seed in range(1, seeds + 1)]
            if name.endswith("number"):
                figures += [Measurement(f"novel, {name.split()[0]} in training: masked codes", samples, "codes")] * (
                    way == WAYS[0]
                )
                continue
            target = {"at_least": 5 * chance} if (name, way) == ("0 top 10", WAYS[1]) else {}
            what = name.replace(" ", " in training, ", 1) if name[0].isdigit() else name
            unit = "nats" if name.endswith("loss") else "share"
            figures.append(figure(f"novel, {what}: {way}", samples, unit, **target))
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)} [default: all]")
    parser.add_argument("--seeds", type=int, default=4, help="seeds of truth and novel [default: 4]")
    parser.add_argument("--quick", action="store_true", help="check the program, keep no results")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"Error: --parts: {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    loads = load_average()
    patients, seeds = (1000, 2) if given.quick else (PATIENTS, given.seeds)
    figures: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "patients.jsonl", patients + OTHERS, POPULATION)
        if set(parts) & {"convergence", "novel"}:
            from exmed_bert.clinvec.hierarchy import make, write

            made = make(128, 0.1, 42)
            write(made, folder / "embeddings", ~made.held_out)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_remember_align) as pool:
            work = {"truth": truth_figures, "convergence": convergence_figures, "novel": novel_figures}
            for part in PARTS:
                if part in parts:
                    print(part, flush=True)
                    options = {"folder": folder, "pool": pool, "patients": patients, "quick": given.quick}
                    figures += work[part](seeds=seeds, **options)
    if given.quick or parts != list(PARTS):
        from common import print_figures

        print_figures(figures)
    else:
        report("novel_codes", given, loads, figures)


if __name__ == "__main__":
    main()
