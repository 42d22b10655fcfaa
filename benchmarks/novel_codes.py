"""Show what codes that are sums over the code trees gain, on the synthetic population; estimate held-out vectors.

    python benchmarks/novel_codes.py                          # half an hour of two idle cores
    python benchmarks/novel_codes.py --seeds 2 --populations 1    # fewer samples
    python benchmarks/novel_codes.py --quick                  # a check of the program itself, keeps no results

Pretraining of the demonstration's model on 1 % and on 10 % of 20,000 patients, by five ways that differ in the codes:

* random: each code has rows of its own, drawn at random.
* random + mask: the same, but codes that never occur in training are masked out of the softmax, and get a share of the
  probability afterward. A fair start to compare with: what follows has the mask, too.
* shared start: rows start from vectors of the code trees (scripts/make_hierarchy_embeddings.py; they are not ClinVec),
  those of codes without a vector from their relatives; from then on each code has rows of its own.
* composed: rows are sums of the codes' own and their ancestors', all of them trained.
* composed + vectors: the same, and own rows and ancestors' start from the vectors.

A sample is a seed of training on a population. Figures:

* the step at which a way first reaches the loss with which random + mask of the same seed ends, as a share of the steps
  (interpolated between evaluations; 1 where it never does), the same for random, and the validation loss at 25, 50 and
  100 % of the steps, on 1,000 patients that no way trains on;
* trained on 10 %: masked novel codes of all other patients by how often they occur in training: top 10 among all codes
  and among the codes of their code system, beside chance, and their loss; differences to random.
* the oracle: what the composed model would say if it knew how often the generator replaced which code by which.

Intervals are 95 %: of the mean over samples (t); for novel codes from a bootstrap over samples and, within, over codes.

truth: a tenth of the codes is held out of the vectors, each is estimated from those that are left; the figure is the
median cosine to its true vector, beside the nearest ancestor's, the siblings' mean, and any code's.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import Measurement, generate, load_average, report
from runs import DEMO, Model, pretrain
from scipy.stats import t as student

PARTS = ("truth", "codes")
MODEL = Model(DEMO.layers, DEMO.hidden, DEMO.heads, DEMO.feed_forward, batch=16)
PATIENTS, MAX_LENGTH = 20_000, 80
OTHERS = 5000  # patients beyond those trained on
POPULATIONS = (7, 11)  # seeds; what the codes do by default was chosen on those of seeds 101 and 102
STEPS = {0.01: 400, 0.1: 1000}  # of the share of the patients that is trained on
TARGETS = {0.01: 0.6, 0.1: 0.75}  # of the steps of random + mask
NOVEL_SHARE = 0.1  # on which novel codes are looked at
EVALUATIONS = 20
OCCURRENCES = {"never": (0, 0), "1-2 times": (1, 2), "3-10 times": (3, 10)}
WAYS = ("random", "random + mask", "shared start", "composed", "composed + vectors")
RANDOM, MASK, _, COMPOSED, _ = WAYS
OF_ALL = 3000  # other patients, whose codes tell the loss over all codes
RESAMPLES = 1000

Job = tuple[int, float, str, int]  # population, share, way, seed


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


def truth_figures(seeds: int) -> list[Measurement]:
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


def settings_of(way: str, embeddings: Path) -> dict[str, Any]:
    """Return the settings of a way."""
    given: dict[str, Any] = {"code_ancestors": way.startswith("composed")}
    if way in ("shared start", "composed + vectors"):
        given |= {"use_clinvec": True, "clinvec_dir": embeddings, "resize_if_needed": True, "resize_method": "pca"}
        given["use_hierarchical_init"] = True
    return given


def use_mask(wanted: bool) -> None:
    """Have the next pretraining in this process mask codes that never occur, though nothing places them."""
    from exmed_bert.training import pretrain as step
    from exmed_bert.training.trainer import PretrainingTrainer
    from exmed_bert.training.unseen import UnseenCodes

    class Masking(PretrainingTrainer):
        def __init__(self, model: Any, args: Any, train: Any, val: Any, most: int, unseen: Any, *more: Any) -> None:
            unseen = UnseenCodes(model, train.info.vocabulary.keys, train.code_counts)
            unseen.estimate = lambda model, seed: None
            super().__init__(model, args, train, val, most, unseen, *more)

    step.PretrainingTrainer = Masking if wanted else PretrainingTrainer


def train(job: Job, folder: Path, steps: dict[float, int], oracle: bool = True) -> dict[str, Any]:
    """Pretrain; return the losses by step and, for the larger share, what the model says at masked novel codes."""
    import torch

    torch.set_num_threads(1)
    population, share, way, seed = job
    place = folder / str(population)
    paths = {f"{kind}_data": place / f"share_{share}_{name}.pt" for kind, name in
             (("training", "train"), ("validation", "val"))}  # fmt: skip
    run = place / f"{share}_{way}_{seed}"
    use_mask(way == MASK)
    pretrain(
        MODEL, run, **paths, **settings_of(way, folder / "embeddings"), seed=seed, max_steps=steps[share], plos=False,
        eval_steps=max(steps[share] // EVALUATIONS, 1), save_steps=steps[share], eval_max_patients=1000,
    )  # fmt: skip
    last = run / "model" / f"checkpoint-{steps[share]}" / "trainer_state.json"
    log = json.loads(last.read_text())["log_history"]
    found: dict[str, Any] = {"losses": [(entry["step"], entry["eval_loss"]) for entry in log if "eval_loss" in entry]}
    if share == NOVEL_SHARE:
        meta = json.loads((place / "patients.meta.json").read_text())["novel_codes"]
        found |= novel_codes(run / "model", paths, meta if way == COMPOSED else None)
    return found


def novel_codes(folder: Path, paths: dict[str, Path], meta: dict[str, Any] | None) -> dict[str, Any]:
    """Return per masked novel code, (n, 6), its id, occurrences, rank, rank in its system, that one's size, and loss.

    And the mean loss over all codes of some patients, and with ``meta`` the oracle's ranks and losses, (n, 2).
    """
    import torch
    from torch.nn import functional as F

    from exmed_bert.data.batches import MaskedCodeCollator
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.models import ExMedBertForMaskedLM

    train, val = (PatientDataset.load(path) for path in paths.values())
    model = ExMedBertForMaskedLM.from_pretrained(folder).eval()
    counts, vocabulary = train.code_counts, val.info.vocabulary
    rare_novel = np.intersect1d(val.novel_ids, np.flatnonzero(counts <= max(most for _, most in OCCURRENCES.values())))
    collator = MaskedCodeCollator(val.info, False, validation=True)
    of_all = np.random.default_rng(0).permutation(len(val)) < OF_ALL
    order = np.argsort(val.lengths, kind="stable")
    entities = torch.from_numpy(vocabulary.entities.astype(np.int64))
    shares = None if meta is None else family_shares(vocabulary, meta)
    rows, known, losses = [], [], []
    for chosen in np.array_split(order, -(-len(order) // 64)):
        batch = collator(val.batch(chosen))
        labels = batch["code_labels"]
        wanted = np.isin(labels.numpy(), rare_novel)
        keep = torch.from_numpy(wanted.any(axis=1) | of_all[chosen])
        if not keep.any():
            continue
        batch = {name: tensor[keep] for name, tensor in batch.items()}
        masked = batch["code_labels"] != -100
        label = batch["code_labels"][masked]
        with torch.no_grad():
            logits = model(**batch).masked_logits.float()
        loss = F.cross_entropy(logits, label, reduction="none")
        losses.append(loss[torch.from_numpy(of_all[chosen])[keep][:, None].expand_as(masked)[masked]])
        novel = torch.from_numpy(np.isin(label.numpy(), rare_novel))
        if not novel.any():
            continue
        logits, label, loss = logits[novel], label[novel], loss[novel]
        higher = logits > logits.gather(1, label[:, None])
        same = entities[None, :] == entities[label][:, None]
        occurrences = torch.from_numpy(counts[label.numpy()].astype(np.int64))
        rows.append(torch.stack((label, occurrences, higher.sum(1), (higher & same).sum(1), same.sum(1), loss), dim=1))
        if shares is not None:
            known.append(oracle(logits.log_softmax(1), label, *shares))
    found = {"novel": torch.cat(rows).double().numpy(), "all loss": float(torch.cat(losses).mean())}
    found["codes"] = len(vocabulary)
    return found | ({"oracle": torch.cat(known).double().numpy()} if known else {})


def family_shares(vocabulary: Any, meta: dict[str, Any]) -> tuple[Any, Any]:
    """Return the family of each id, a code and those that replace it, and its share of the family's occurrences."""
    import torch

    ids = {key[1]: token for token, key in enumerate(vocabulary.keys) if key is not None}
    family, rates = torch.arange(len(vocabulary)), torch.ones(len(vocabulary), dtype=torch.float64)
    by_source: dict[str, list[tuple[int, int]]] = {}
    for code, entry in meta.items():
        if code in ids and entry["source"] in ids:
            by_source.setdefault(entry["source"], []).append((ids[code], entry["count"]))
    for source, variants in by_source.items():
        total = sum(count for _, count in variants) / NOVEL_RATE
        for token, count in variants:
            family[token], rates[token] = ids[source], count / total
        rates[ids[source]] = 1 - NOVEL_RATE
    return family, rates


NOVEL_RATE = 0.01  # of the events, the generator's default


def oracle(logs: Any, label: Any, family: Any, rates: Any) -> Any:
    """Return rank and loss of each label, (n, 2), where what the model gives a family is divided as the generator does.

    ``logs``, (n, V), are the model's log probabilities.
    """
    import torch

    of_family = torch.zeros_like(logs.double()).index_add(1, family, logs.double().exp())
    known = of_family[:, family] * rates
    own = known.gather(1, label[:, None])
    return torch.stack(((known > own).sum(1), -own[:, 0].log()), dim=1)


def reached(losses: list[tuple[int, float]], goal: float) -> float:
    """Return the first step, interpolated, at which the loss is at most ``goal``; the last step where it never is."""
    before = losses[0]
    for step, loss in losses:
        if loss <= goal:
            fall = before[1] - loss
            return step - (step - before[0]) * ((goal - loss) / fall if fall > 0 else 0)
        before = step, loss
    return losses[-1][0]


def loss_at(losses: list[tuple[int, float]], share: float) -> float:
    """Return the loss at a share of the steps."""
    return float(np.interp(share * losses[-1][0], *zip(*losses, strict=True)))


def convergence_figures(found: dict[Job, dict[str, Any]], samples: list[tuple[int, int]]) -> list[Measurement]:
    """Return steps and losses."""
    figures = []
    for share in STEPS:
        curves = {way: [found[p, share, way, seed]["losses"] for p, seed in samples] for way in WAYS}
        total = curves[MASK][0][-1][0]
        name = f"{share:.0%} of {PATIENTS:,}"
        for reference in (MASK, RANDOM):
            for way in WAYS:
                if way != reference:
                    shares = [reached(curve, end[-1][1]) / total
                              for curve, end in zip(curves[way], curves[reference], strict=True)]  # fmt: skip
                    target = {"at_most": TARGETS[share]} if (way, reference) == (COMPOSED, MASK) else {}
                    figures.append(
                        figure(f"{name}, share of the steps of {reference}: {way}", shares, "share", **target)
                    )
        for at in (0.25, 0.5, 1.0):
            figures += [
                figure(f"{name}, loss at {at:.0%}: {way}", [loss_at(curve, at) for curve in curves[way]], "nats")
                for way in WAYS
            ]
    return figures


def novel_figures(found: dict[Job, dict[str, Any]], samples: list[tuple[int, int]]) -> list[Measurement]:
    """Return what the models say at masked novel codes."""
    of = {way: [found[p, NOVEL_SHARE, way, seed] for p, seed in samples] for way in WAYS}
    chance = statistics.mean(10 / one["codes"] for one in of[RANDOM])
    figures = [Measurement("novel codes: chance, top 10", [chance], "share")]
    for name, (least, most) in OCCURRENCES.items():
        chosen = [(one["novel"][:, 1] >= least) & (one["novel"][:, 1] <= most) for one in of[RANDOM]]
        if not all(map(np.any, chosen)):
            continue
        codes = [one["novel"][rows, 0] for one, rows in zip(of[RANDOM], chosen, strict=True)]
        sizes = [one["novel"][rows, 4] for one, rows in zip(of[RANDOM], chosen, strict=True)]
        figures.append(Measurement(f"novel, {name}: masked codes", [len(part) for part in codes], "codes"))
        within = [float((10 / part).mean()) for part in sizes]
        figures.append(Measurement(f"novel, {name}: chance, top 10 of their system", within, "share"))
        parts = {
            "top 10": {way: [_hits(one["novel"][:, 2]) for one in of[way]] for way in WAYS},
            "top 10 of their system": {way: [_hits(one["novel"][:, 3]) for one in of[way]] for way in WAYS},
            "loss": {way: [one["novel"][:, 5] for one in of[way]] for way in WAYS},
        }
        parts["top 10"]["oracle"] = [_hits(one["oracle"][:, 0]) for one in of[COMPOSED]]
        parts["loss"]["oracle"] = [one["oracle"][:, 1] for one in of[COMPOSED]]
        for what, by_way in parts.items():
            unit = "nats" if what == "loss" else "share"
            values = {way: [v[rows] for v, rows in zip(by_way[way], chosen, strict=True)] for way in by_way}
            for way in values:
                target = {"at_least": 5 * chance} if (name, what, way) == ("never", "top 10", COMPOSED) else {}
                figures.append(bootstrapped(f"novel, {name}, {what}: {way}", values[way], codes, unit, **target))
            gains = [b - a for a, b in zip(values[RANDOM], values[COMPOSED], strict=True)]
            target = {"at_most": 0} if what == "loss" else {"at_least": 0}
            title = f"novel, {name}, {what}: composed minus random"
            figures.append(bootstrapped(title, gains, codes, unit, **target))
    for way in WAYS:
        figures.append(figure(f"loss over all codes: {way}", [one["all loss"] for one in of[way]], "nats"))
    gains = [a["all loss"] - b["all loss"] for a, b in zip(of[COMPOSED], of[RANDOM], strict=True)]
    return [*figures, figure("loss over all codes: composed minus random", gains, "nats", at_most=0)]


def _hits(ranks: np.ndarray) -> np.ndarray:
    return (ranks < 10).astype(float)


def bootstrapped(
    name: str, values: list[np.ndarray], codes: list[np.ndarray], unit: str, **target: float
) -> Measurement:
    """Return a figure with the interval of its mean over samples and, within each, over codes."""
    rng = np.random.default_rng(0)
    by_code = []
    for of_sample, of_codes in zip(values, codes, strict=True):
        _, place = np.unique(of_codes, return_inverse=True)
        by_code.append((np.bincount(place, of_sample), np.bincount(place)))
    means = []
    for _ in range(RESAMPLES):
        drawn = []
        for sample in rng.integers(0, len(by_code), len(by_code)):
            sums, numbers = by_code[sample]
            rows = rng.integers(0, len(sums), len(sums))
            drawn.append(sums[rows].sum() / numbers[rows].sum())
        means.append(statistics.mean(drawn))
    low, high = np.quantile(means, [0.025, 0.975])
    samples = [float(of_sample.mean()) for of_sample in values]
    title = f"{name} (mean {statistics.mean(samples):.3g}, {low:.3g} to {high:.3g})"
    return Measurement(title, samples, unit, **target)


def code_figures(
    folder: Path, pool: ProcessPoolExecutor, seeds: int, populations: int, quick: bool
) -> list[Measurement]:
    """Return the figures of the second part."""
    from exmed_bert.clinvec.hierarchy import make, write

    made = make(128, 0.1, 42)
    write(made, folder / "embeddings", ~made.held_out)
    patients, steps = (2000, dict.fromkeys(STEPS, 20)) if quick else (PATIENTS, STEPS)
    for population in POPULATIONS[:populations]:
        place = folder / str(population)
        place.mkdir()
        generate(place / "patients.jsonl", patients + OTHERS, population)
        for share in STEPS:
            datasets(place, share, patients)
    samples = [(p, seed) for seed in range(1, seeds + 1) for p in POPULATIONS[:populations]]
    jobs = [(p, share, way, seed) for p, seed in samples for share in STEPS for way in WAYS]
    results = {}
    for job, result in zip(jobs, pool.map(partial(train, folder=folder, steps=steps), jobs), strict=True):
        results[job] = result
        print(f"  {job}: loss {result['losses'][-1][1]:.3f}", flush=True)
    return convergence_figures(results, samples) + novel_figures(results, samples)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)} [default: all]")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of training, and of truth [default: 5]")
    parser.add_argument("--populations", type=int, default=2, help="1 or 2 [default: 2]")
    parser.add_argument("--quick", action="store_true", help="check the program, keep no results")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"Error: --parts: {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    loads = load_average()
    seeds, populations = (1, 1) if given.quick else (given.seeds, given.populations)
    figures: list[Measurement] = []
    if "truth" in parts:
        figures += truth_figures(seeds)
    if "codes" in parts:
        with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            figures += code_figures(Path(name), pool, seeds, populations, given.quick)
    if given.quick:
        from common import print_figures

        print_figures(figures)
    else:
        report("novel_codes", given, loads, figures)


if __name__ == "__main__":
    main()
