"""Embeddings of patients: how fast they are made, and what a logistic regression on them is worth.

    python benchmarks/embeddings.py                  # patients and model are made in a temporary folder; an hour
    python benchmarks/embeddings.py --folder DIR     # they are kept there, or found: those of finetuning.py --realistic
    python benchmarks/embeddings.py --quick          # a check of the program itself, keeps no results

Patients, model, endpoints, labels and test patients are those of `benchmarks/finetuning.py --realistic --endpoints 10`.
The embedding of a patient at the index date is the input of a logistic regression, beside the one on a bag of codes
that is a baseline of fine-tuning: both learn from the same patients and choose their penalty by the AUROC of the same
validation patients. Differences are means over the endpoints and, with few labels, the draws; their intervals resample
patients, each with all their outcomes, and draws.

The rates are of patients per second of processor time, in turns: `scripts/embed_patients.py` from a dataset, all of it
from start to end, and pretraining's evaluation of the same patients with the same model, without its start.
"""

import argparse
import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from common import Measurement, at_least_one, load_average, print_figures, report, run_quietly, script
from finetuning import Found, make_case, told
from pretrained import LEAST_EVENTS, MOST_FREQUENT, SEED, frequent, patients_of, pretrain
from two_level import differences

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.embedding.pooling import POOLINGS, Embedder
from exmed_bert.evaluation import baselines, masked_codes
from exmed_bert.evaluation.metrics import Predictions
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.models.folder import read_pretrained
from exmed_bert.training.hardware import choose_attention

PATIENTS, PRETRAINED, POPULATION_SEED = 200_000, 20_000, 11
ENDPOINTS = 10
SIZES = (100, 300, 1000, None)  # None: all
SEEDS = 3  # draws of few labels
BAG, DEFAULT = "bag of codes", "query"  # the default of a model that makes forecasts
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse of the penalty
TIMED = 100_000  # patients
REPEATS = 3


def regression(vectors: np.ndarray, patients: LabeledPatients, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Return the probabilities of all patients by a logistic regression whose penalty validation patients choose.

    Dimensions keep their spread: where patients differ more they tell more.
    """
    from sklearn.linear_model import LogisticRegression

    centered = vectors - vectors[train].mean(axis=0)
    centered /= centered[train].std()
    fits = []
    for strength in STRENGTHS:
        fit = LogisticRegression(C=strength, max_iter=2000).fit(centered[train], patients.labels[train])
        ranked = Predictions(patients.labels[validation], fit.predict_proba(centered[validation])[:, 1])
        fits.append((ranked.measure()["auroc"], fit))
    return max(fits, key=lambda one: one[0])[1].predict_proba(centered)[:, 1]


def find(name: str, folder: Path, model_dir: Path, given: argparse.Namespace) -> Found | None:
    """Measure an endpoint, or read what was found of it before; None where it has too few events."""
    kept = folder / "embeddings" / f"{name}.npz"
    if kept.exists():
        return Found.load(kept)
    case = make_case(name, folder, model_dir)
    patients, test, pretrained = case.experiment.patients, case.test, case.experiment.pretrained
    labels = patients.labels[test]
    if labels.sum() < given.least_events:
        return None
    form = replace(read_pretrained(model_dir)[1], vocabulary=pretrained.vocabulary)
    vectors = {pooling: Embedder(pretrained.model, form, pooling).embed(patients) for pooling in POOLINGS}
    scored: dict[str, dict[str, np.ndarray]] = {}
    for size in SIZES:
        drawn: dict[str, list[np.ndarray]] = {what: [] for what in (*POOLINGS, BAG)}
        for seed in range(SEED, SEED + (given.seeds if size else 1)):
            rows = draw_subset(patients, size, seed)
            for pooling, table in vectors.items():
                drawn[pooling].append(regression(table, patients, rows.train, rows.validation)[test])
            drawn[BAG].append(baselines.fit("logreg", patients, rows.train, rows.validation, seed).probabilities[test])
        scored[told(size)] = {what: np.stack(own) for what, own in drawn.items()}
    nobody = np.zeros(len(labels), dtype=bool)
    keys = patients.dataset.columns["patient_hashes"].numpy()[test]
    found = Found(name, labels, keys, np.zeros((0, len(labels))), scored, {}, nobody, nobody.astype(float))
    for figure in aurocs(found):
        print(f"{figure.name}, mean AUROC {np.mean(figure.samples):.4f}", flush=True)
    kept.parent.mkdir(exist_ok=True)
    found.save(kept)
    return found


def aurocs(found: Found) -> list[Measurement]:
    """Return the AUROCs of an endpoint, by number of labels and input."""
    return [
        Measurement(f"{found.name}, {size} labels: {what}", [found.auroc(one) for one in drawn], "AUROC")
        for size, by_input in found.scored.items()
        for what, drawn in by_input.items()
    ]


def figures_of(found: list[Found]) -> list[Measurement]:
    """Return all figures but the rates."""
    figures = [Measurement("endpoints", [len(found)], "codes")]
    for of in found:
        figures.append(Measurement(f"{of.name}: test patients", [len(of.labels)], "patients"))
        figures.append(Measurement(f"{of.name}: with the outcome", [int(of.labels.sum())], "patients"))
        figures += aurocs(of)
    for size in found[0].scored:
        by_input = differences([of.draws(of.scored[size]) for of in found], BAG)
        for what, (mean, _) in by_input.items():
            figures.append(Measurement(f"{size} labels: {what}, mean AUROC", [mean], "AUROC"))
        for what in POOLINGS:
            fewer = by_input[what][1]  # of the bag of codes
            low, high = fewer.interval or (fewer.value, fewer.value)
            gain = Measurement(f"{size} labels: {what} minus {BAG}", [-high, -fewer.value, -low], "AUROC")
            figures.append(gain)
            if what == DEFAULT:
                figures.append(Measurement(f"{gain.name}, lower end", [-high], "AUROC", at_least=0.0))
    return figures


def seconds_of(work: Callable[[], None], whose: int) -> float:
    """Return the seconds of processor time that work takes, of this process or of those that it starts."""
    before = resource.getrusage(whose)
    work()
    after = resource.getrusage(whose)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rates(folder: Path, model_dir: Path, patients: int) -> list[Measurement]:
    """Return the rates of embedding a dataset and of pretraining's evaluation of it."""
    model, _ = read_pretrained(model_dir)
    model.set_attn_implementation(choose_attention(model.config, "fp32").name)
    whole = PatientDataset.load(folder / "data_val.pt")
    dataset = whole.subset(range(min(patients, len(whole))))
    samples: dict[str, list[float]] = {"evaluation": [], "embedding": []}
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "some.pt", Path(temporary) / "embeddings.parquet"
        dataset.save(source)

        def evaluate() -> None:
            collate = MaskedCodeCollator(dataset.info, plos=False, validation=True)
            order = np.argsort(dataset.lengths, kind="stable")
            batches = (collate(dataset.batch(order[i : i + 64])) for i in range(0, len(order), 64))
            masked_codes.predict(model, batches, torch.device("cpu"))

        def embed() -> None:
            run_quietly(script("embed_patients.py", "--model-dir", model_dir, "--input", source, "--output", target))

        for _ in range(REPEATS):
            samples["evaluation"].append(len(dataset) / seconds_of(evaluate, resource.RUSAGE_SELF))
            samples["embedding"].append(len(dataset) / seconds_of(embed, resource.RUSAGE_CHILDREN))
    ratios = [ours / theirs for ours, theirs in zip(samples["embedding"], samples["evaluation"], strict=True)]
    return [
        *(Measurement(f"{name}, processor time", one, "patients/s") for name, one in samples.items()),
        Measurement("embedding by evaluation, rate", ratios, "", at_least=0.5),
    ]


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help="how many [default: 200,000]")
    parser.add_argument("--pretrained", type=at_least_one, default=PRETRAINED, help="of them, for pretraining [20,000]")
    parser.add_argument("--population-seed", type=int, default=POPULATION_SEED, help="of the patients [default: 11]")
    parser.add_argument("--epochs", type=at_least_one, default=30, help="of pretraining [default: 30]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"draws of few labels [default: {SEEDS}]")
    parser.add_argument("--endpoints", type=at_least_one, default=ENDPOINTS, help="most of them [default: 10]")
    parser.add_argument(
        "--least-events", type=at_least_one, default=LEAST_EVENTS, help="of an endpoint's test patients"
    )
    parser.add_argument("--folder", type=Path, help="where patients, model and scores are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick = given.folder, given.quick
    del given.folder, given.quick
    if quick:
        given.patients, given.pretrained, given.epochs, given.seeds = 8000, 2500, 1, 2
        given.population_seed, given.endpoints, given.least_events = 3, 2, 8
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trained_on = given.pretrained / given.patients
        model_dir = pretrain(folder, given.patients, given.epochs, trained_on, given.population_seed, ["--realistic"])
        found: list[Found] = []
        for name in frequent(patients_of(folder), MOST_FREQUENT):
            of = find(name, folder, model_dir, given) if len(found) < given.endpoints else None
            found += [] if of is None else [of]
        figures = [*rates(folder, model_dir, 500 if quick else TIMED), *figures_of(found)]
    if quick:
        print_figures(figures)
    else:
        report("embeddings", given, load, figures)


if __name__ == "__main__":
    main()
