"""Embeddings of patients: how fast they are made, and what a logistic regression on them is worth.

    python benchmarks/embeddings.py --folder /tmp/finetuning    # patients and model are made there, or found again
    python benchmarks/embeddings.py --quick                     # a check of the program itself, keeps no results

Patients, model, endpoints, labels and test patients are those of benchmarks/finetuning.py. The embedding of a patient
at the index date is the input of a logistic regression, beside the one on a bag of codes that is a baseline of
fine-tuning: both choose their penalty on the same validation patients. Differences are means over the endpoints and,
with few labels, the draws; their intervals resample patients, each with all their outcomes. Intervals over endpoints
are of Student's t over the endpoints' means: they say what to expect of another endpoint of this kind.

The rate is that of `scripts/embed_patients.py` from a dataset, beside that of pretraining's evaluation of the same
patients with the same model, one after the other in one process.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from common import Measurement, at_least_one, load_average, print_figures, report
from finetuning import BY_HAND, Case, make_case
from pretrained import SEED, pretrain
from scipy import stats

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.decoding import decoded_chunks
from exmed_bert.embedding.histories import HistoryBuilder
from exmed_bert.embedding.pooling import POOLINGS, Embedder, Pooling
from exmed_bert.evaluation import baselines, masked_codes
from exmed_bert.evaluation.bootstrap import PairedPredictions, mean_paired_differences
from exmed_bert.evaluation.metrics import Predictions
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.models.folder import read_pretrained
from exmed_bert.training.hardware import choose_attention

PATIENTS, PRETRAINED = 60_000, 20_000
SIZES = (100, 300, 1000, None)  # None: all
SEEDS = 5  # draws of few labels
BAG = "bag of codes"
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse of the penalty, of columns of unit spread
BATCH = 256
TIMED = 10_000  # patients
REPEATS = 3


@dataclass(frozen=True)
class Scored:
    """Probabilities of an endpoint's test patients, from one draw of labels.

    Attributes:
        endpoint: the code.
        labels, keys: (n,) outcomes, and hashes of the patients' ids.
        by_input: probabilities, (n,) each, by what the regression is of.
    """

    endpoint: str
    labels: np.ndarray
    keys: np.ndarray
    by_input: dict[str, np.ndarray]


def embedded(case: Case, form: ModelInput, pooling: Pooling) -> np.ndarray:
    """Return the embeddings of the histories of a cohort, (N, hidden); codes new to the model are as in fine-tuning."""
    pretrained = case.experiment.pretrained
    embedder = Embedder(pretrained.model.bert, replace(form, vocabulary=pretrained.vocabulary), pooling, BATCH)
    return embedder.embed(case.experiment.patients)


def regression(vectors: np.ndarray, patients: LabeledPatients, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Return the probabilities of all patients by a logistic regression whose penalty validation patients choose."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit(vectors[train]).transform(vectors)
    fits = []
    for strength in STRENGTHS:
        fit = LogisticRegression(C=strength, max_iter=2000).fit(scaled[train], patients.labels[train])
        ranked = Predictions(patients.labels[validation], fit.predict_proba(scaled[validation])[:, 1])
        fits.append((ranked.measure()["auroc"], fit))
    return max(fits, key=lambda one: one[0])[1].predict_proba(scaled)[:, 1]


def score(
    name: str, folder: Path, model_dir: Path, sizes: tuple[int | None, ...], seeds: int
) -> dict[int, list[Scored]]:
    """Return by number of labels, 0 for all, what was scored for an endpoint, draw by draw."""
    case = make_case(name, folder, model_dir)
    patients, test = case.experiment.patients, case.test
    _, form = read_pretrained(model_dir)
    vectors = {pooling: embedded(case, form, pooling) for pooling in POOLINGS}
    keys = patients.dataset.columns["patient_hashes"].numpy()[test]
    found: dict[int, list[Scored]] = {}
    for size in sizes:
        for seed in range(SEED, SEED + (seeds if size else 1)):
            subset = draw_subset(patients, size, seed)
            by_input = {
                pooling: regression(table, patients, subset.train, subset.validation)[test]
                for pooling, table in vectors.items()
            }
            by_input[BAG] = baselines.fit("logreg", patients, subset.train, subset.validation, seed).probabilities[test]
            found.setdefault(size or 0, []).append(Scored(name, patients.labels[test], keys, by_input))
            aurocs = {what: auroc(patients.labels[test], one) for what, one in by_input.items()}
            told = ", ".join(f"{what} {value:.4f}" for what, value in aurocs.items())
            print(f"{name}, {size or 'all'} labels, seed {seed}: {told}", flush=True)
    return found


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the AUROC."""
    return Predictions(labels, probabilities).measure()["auroc"]


def compared(size: int, scored: list[Scored]) -> list[Measurement]:
    """Return the mean AUROC of each input, and each embedding's difference from the bag of codes."""
    what, figures = f"{size or 'all'} labels", []
    endpoints = list(dict.fromkeys(one.endpoint for one in scored))
    for name in scored[0].by_input:
        mean = float(np.mean([auroc(one.labels, one.by_input[name]) for one in scored]))
        figures.append(Measurement(f"{what}: {name}, mean AUROC", [mean], "AUROC"))
    for pooling in POOLINGS:
        pairs = [PairedPredictions(one.labels, one.by_input[pooling], one.by_input[BAG], one.keys) for one in scored]
        difference = mean_paired_differences(pairs, ("auroc",))["auroc"]
        sample = [difference.low, difference.value, difference.high]
        figures.append(Measurement(f"{what}: {pooling} minus {BAG}, patients", sample, "AUROC"))
        if size == 300 and pooling == POOLINGS[0]:
            figures.append(
                Measurement(f"{what}: {pooling} minus {BAG}, patients, lower end", sample[:1], "AUROC", at_least=0.0)
            )
        of_endpoint = [
            float(
                np.mean(
                    [
                        auroc(one.labels, one.by_input[pooling]) - auroc(one.labels, one.by_input[BAG])
                        for one in scored
                        if one.endpoint == endpoint
                    ]
                )
            )
            for endpoint in endpoints
        ]
        if len(endpoints) > 1:
            margin = float(stats.t.ppf(0.975, len(endpoints) - 1) * np.std(of_endpoint, ddof=1) / len(endpoints) ** 0.5)
            mean = float(np.mean(of_endpoint))
            figures.append(
                Measurement(f"{what}: {pooling} minus {BAG}, endpoints", [mean - margin, mean, mean + margin], "AUROC")
            )
    return figures


def rates(folder: Path, model_dir: Path, patients: int) -> list[Measurement]:
    """Return the patients per second of processor time of embedding a dataset and of pretraining's evaluation of it."""
    model, form = read_pretrained(model_dir)
    model.set_attn_implementation(choose_attention(model.config, "fp32").name)
    whole = PatientDataset.load(folder / "data_val.pt")
    dataset = whole.subset(range(min(patients, len(whole))))

    def evaluate() -> None:
        collate = MaskedCodeCollator(dataset.info, plos=False, validation=True)
        order = np.argsort(dataset.lengths, kind="stable")
        batches = (collate(dataset.batch(order[i : i + 64])) for i in range(0, len(order), 64))
        masked_codes.predict(model, batches, torch.device("cpu"))

    def embed() -> None:
        builder = HistoryBuilder(form, OwnLabels(None))
        embedder = Embedder(model.bert, form, "mean", BATCH)
        for chunk in decoded_chunks(dataset):
            embedder.embed(builder.build(chunk)[0])

    samples: dict[str, list[float]] = {"evaluation": [], "embedding": []}
    for _ in range(REPEATS):
        for name, work in (("evaluation", evaluate), ("embedding", embed)):
            start = time.process_time()
            work()
            samples[name].append(len(dataset) / (time.process_time() - start))
    ratios = [ours / theirs for ours, theirs in zip(samples["embedding"], samples["evaluation"], strict=True)]
    return [
        *(Measurement(f"{name}, processor time", one, "patients/s") for name, one in samples.items()),
        Measurement("embedding by evaluation, rate", ratios, "", at_least=0.5),
    ]


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--pretrained", type=at_least_one, default=PRETRAINED, help="of them, for pretraining [20,000]")
    parser.add_argument("--epochs", type=at_least_one, default=30, help="of pretraining [default: 30]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"draws of few labels [default: {SEEDS}]")
    parser.add_argument("--folder", type=Path, help="where patients and model are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick = given.folder, given.quick
    del given.folder, given.quick
    if quick:
        given.patients, given.pretrained, given.epochs, given.seeds = 3000, 1000, 1, 2
    endpoints, sizes = (("I10", "E78.5"), (100, None)) if quick else (BY_HAND, SIZES)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model_dir = pretrain(folder, given.patients, given.epochs, given.pretrained / given.patients)
        by_size: dict[int, list[Scored]] = {}
        for name in endpoints:
            for size, scored in score(name, folder, model_dir, sizes, given.seeds).items():
                by_size.setdefault(size, []).extend(scored)
        figures = [figure for size, scored in by_size.items() for figure in compared(size, scored)]
        figures += rates(folder, model_dir, 500 if quick else TIMED)
    if quick:
        print_figures(figures)
    else:
        report("embeddings", given, load, figures)


if __name__ == "__main__":
    main()
