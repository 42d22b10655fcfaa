"""Show that the synthetic population holds something to learn: predict the hidden codes of held-out patients.

    python benchmarks/learnability.py            # 25,000 patients, about 20 minutes
    python benchmarks/learnability.py --quick    # a check of the program itself, about two minutes, keeps no results

Realistic patients are generated (seed 42), converted and pretrained on by the project itself. Every predictor answers
for the same positions of the same validation patients: those that the fixed validation masks choose and that show MASK
(the masks leave a tenth of the chosen codes in sight, and put a random code in place of another tenth). Each predictor
is told the kind of the hidden code, diagnosis or drug, and

* frequency: the patient's age and sex, and nothing else;
* copy: the codes that the patient's masked history shows; it names the most frequent of the kind;
* bag of codes: age, sex and those codes. Naive Bayes and logistic regression are tuned on training patients set
  apart, and the better one is shown;
* ExMed-BERT: all that its input holds, so also what meets in a visit, the order of visits and the state.

A first occurrence is a hidden code that stands nowhere else in the patient's history, shown or hidden. Who is not told
so does well to name a code that is there already. Where *told* stands, nobody may name a code that the history shows.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import Measurement, at_least_one, generate, load_average, print_figures, report, script
from pretrained import SMALL
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, MultinomialNB

from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED, MASK
from exmed_bert.data.vocabulary import ORIGINAL_ENTITIES, SPECIAL_TOKENS
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.settings import ConvertSettings

MAX_LENGTH = 80  # codes; of longer histories the latest visits count
PATIENTS = 25_000  # four in five of them are trained on
EPOCHS = 20
BAND = 5  # years of age
SEXES = 8  # ids
RARE = 20  # codes with fewer training examples are not among those that a bag-of-codes model tells apart
TUNING, FINAL = 20_000, 200_000  # training examples of each kind
MASKS = 4  # epochs of training masks that the baselines learn from
RESAMPLES = 2000
NEVER = -1e9  # score of a code that may not be named
DIFFERENCES = (("bag of codes", "frequency", 0.1), ("ExMed-BERT", "bag of codes", 0.0))  # and the least top 1 gained


@dataclass(frozen=True)
class Hidden:
    """Hidden codes of patients under one set of masks: n codes, N patients, V codes in the vocabulary.

    Attributes:
        patients: (n,) index of the patient.
        codes, kinds: (n,) the code and its entity type.
        groups: (n,) age band and sex as one number.
        first: (n,) bool, whether the code stands nowhere else in the patient's history.
        bag: (N, V) sparse, how often each patient's masked history shows each code.
    """

    patients: np.ndarray
    codes: np.ndarray
    kinds: np.ndarray
    groups: np.ndarray
    first: np.ndarray
    bag: sparse.csr_array

    def __getitem__(self, which: np.ndarray) -> "Hidden":
        names = ("patients", "codes", "kinds", "groups", "first")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def shown(self) -> np.ndarray:
        """Return how often the patient's masked history shows each code, (n, V)."""
        return self.bag.toarray()[self.patients]


Scores = Callable[[Hidden], np.ndarray]  # gives (n, V): the higher, the likelier


def batches(dataset: PatientDataset, epoch: int | None) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the patients in order under the masks of a training epoch; None: the fixed masks of validation."""
    collate = MaskedCodeCollator(dataset.info, plos=False, validation=epoch is None)
    if epoch is not None:
        collate.set_epoch(epoch)
    for start in range(0, len(dataset), 256):
        yield collate(dataset.batch(range(start, min(start + 256, len(dataset)))))


def is_hidden(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return which positions have a label and show MASK, (B, L)."""
    return (batch["code_labels"] != IGNORED) & (batch["input_ids"] == MASK)


def hidden_codes(dataset: PatientDataset, epochs: int | None = None) -> Hidden:
    """Collect the hidden codes under the validation masks, or under those of the first ``epochs`` of training.

    In the latter case each epoch's histories count as further patients.
    """
    size = len(dataset.info.vocabulary)
    rows: list[tuple[np.ndarray, ...]] = []
    bags: list[sparse.csr_array] = []
    patients = 0
    for epoch in [None] if epochs is None else range(epochs):
        for batch in batches(dataset, epoch):
            row, column = (index.numpy() for index in is_hidden(batch).nonzero(as_tuple=True))
            names = ("input_ids", "code_labels", "entity_ids", "age_ids", "sex_ids")
            shown, labels, kinds, ages, sexes = (batch[name].numpy() for name in names)
            codes = labels[row, column]
            history = counts(np.where(labels == IGNORED, shown, labels), size)
            groups = ages[row, column] // BAND * SEXES + sexes[row, 0]
            rows.append((patients + row, codes, kinds[row, column], groups, history[row, codes] == 1))
            bags.append(sparse.csr_array(counts(shown, size)))
            patients += len(shown)
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Hidden(*columns, bag=sparse.csr_array(sparse.vstack(bags)))


def counts(ids: np.ndarray, size: int) -> np.ndarray:
    """Return how often each row of (B, L) ids holds each code, (B, V), special tokens left out."""
    table = np.zeros((len(ids), size), dtype=np.float32)
    np.add.at(table, (np.arange(len(ids))[:, None], ids), 1)
    table[:, : len(SPECIAL_TOKENS)] = 0
    return table


def frequency(train: Hidden, size: int) -> Scores:
    """Return a predictor: the share of each code among those of its kind at the patient's age and sex."""
    table = np.zeros((len(ORIGINAL_ENTITIES), 256, size))
    np.add.at(table, (train.kinds, train.groups, train.codes), 1)
    overall = table.sum(axis=1, keepdims=True) / table.sum(axis=(1, 2), keepdims=True).clip(1)
    table = (table + overall) / (table.sum(axis=2, keepdims=True) + 1)  # the kind's own shares where nobody is
    return lambda hidden: table[hidden.kinds, hidden.groups]


def copy(by_frequency: Scores, kind_of_code: np.ndarray) -> Scores:
    """Return a predictor: the codes of the kind as often as the history shows them, ties by age and sex."""

    def scores(hidden: Hidden) -> np.ndarray:
        return hidden.shown() * (kind_of_code == hidden.kinds[:, None]) + by_frequency(hidden)

    return scores


def features(hidden: Hidden, which: str) -> sparse.csr_array:
    """Return (n, F) features: ``presence``, ``counts``, ``log counts`` or ``both`` of the codes; age band and sex."""
    presence, number = hidden.bag.sign(), hidden.bag
    bags = {"presence": [presence], "counts": [number], "log counts": [number.log1p()]}
    bags["both"] = [presence, number.log1p()]
    n = len(hidden.codes)
    group = sparse.csr_array((np.ones(n, dtype=np.float32), (np.arange(n), hidden.groups)), shape=(n, 256))
    return sparse.csr_array(sparse.hstack([*(bag[hidden.patients] for bag in bags[which]), group]))


def bag_of_codes(make: Callable, which: str, train: Hidden, most: int, by_frequency: Scores) -> Scores:
    """Return a predictor: one fitted model a kind, on at most ``most`` examples each; rare codes come last."""
    models = {}
    for kind in np.unique(train.kinds):
        chosen = np.flatnonzero(train.kinds == kind)
        chosen = np.random.default_rng(0).permutation(chosen)[:most]
        chosen = chosen[np.bincount(train.codes[chosen])[train.codes[chosen]] >= RARE]
        models[kind] = make().fit(features(train[chosen], which), train.codes[chosen])

    def scores(hidden: Hidden) -> np.ndarray:
        found = NEVER / 2 + by_frequency(hidden)
        for kind, model in models.items():
            rows = np.flatnonzero(hidden.kinds == kind)
            if len(rows):
                found[rows[:, None], model.classes_] = model.predict_log_proba(features(hidden[rows], which))
        return found

    return scores


def best_bag_of_codes(train: Hidden, patients: int, by_frequency: Scores) -> tuple[str, Scores]:
    """Tune on training patients set apart, a tenth, and return the best model fitted on all, and its name."""
    apart = train.patients % patients % 10 == 0
    grid = [("naive Bayes", MultinomialNB, "alpha", a, w) for a in (0.1, 1) for w in ("counts", "log counts")]
    grid += [("naive Bayes", BernoulliNB, "alpha", a, "presence") for a in (0.1, 1)]
    bags = ("presence", "log counts", "both")
    grid += [("logistic regression", LogisticRegression, "C", c, w) for c in (0.01, 0.03, 0.1, 0.3) for w in bags]
    results = []
    for name, model, parameter, value, which in grid:

        def make(model: type = model, values: dict[str, float] = {parameter: value}) -> object:  # noqa: B006
            return model(**values, **({"max_iter": 300, "tol": 1e-3} if model is LogisticRegression else {}))

        fitted = bag_of_codes(make, which, train[~apart], TUNING, by_frequency)
        accuracy = float((ranks(fitted(train[apart]), train[apart].codes) == 0).mean())
        name = f"{name}, {which}, {parameter} {value:g}"
        print(f"  {name}: top 1 {accuracy:.4f} of training patients set apart", flush=True)
        results.append((accuracy, name, make, which))
    _, name, make, which = max(results, key=lambda result: result[0])
    return name, bag_of_codes(make, which, train, FINAL, by_frequency)


@torch.no_grad()
def bert_scores(folder: Path, dataset: PatientDataset) -> np.ndarray:
    """Return the logits of a trained model at the hidden codes of a dataset, (n, V)."""
    model = ExMedBertForMaskedLM.from_pretrained(folder).eval()
    found = []
    for batch in batches(dataset, None):
        of_labels = is_hidden(batch)[batch["code_labels"] != IGNORED]
        found.append(model(**batch).masked_logits[of_labels])
    return torch.cat(found).numpy()


def ranks(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return how many codes score higher than the right one, (n,), from (n, V) scores."""
    return (scores > scores[np.arange(len(codes)), codes][:, None]).sum(axis=1)


class Bootstrap:
    """Intervals by patient: patients are drawn anew, with all their hidden codes, `RESAMPLES` times."""

    def __init__(self, patients: int) -> None:
        rng = np.random.default_rng(0)
        draws = (np.bincount(rng.integers(0, patients, patients), minlength=patients) for _ in range(RESAMPLES))
        self.times_drawn = np.stack([draw.astype(np.float32) for draw in draws])  # (resamples, patients)

    def interval(self, values: np.ndarray, patients: np.ndarray) -> tuple[float, float, float]:
        """Return the lower end of the 95 % interval of the mean of (n,) values, the mean, and the upper end."""
        size = self.times_drawn.shape[1]
        sums = self.times_drawn @ np.bincount(patients, weights=values, minlength=size)
        numbers = self.times_drawn @ np.bincount(patients, minlength=size)
        low, high = np.quantile(sums / numbers.clip(1), [0.025, 0.975])
        return float(low), float(values.mean()), float(high)


def accuracy_figures(hidden: Hidden, predictors: dict[str, np.ndarray]) -> list[Measurement]:
    """Return the accuracies of the predictors' (n, V) scores and their differences, for each group of hidden codes."""
    free = {name: ranks(scores, hidden.codes) for name, scores in predictors.items()}
    shown = (hidden.shown() > 0)[hidden.first]
    told = {name: free[name].copy() for name in free}
    for name, scores in predictors.items():
        told[name][hidden.first] = ranks(np.where(shown, NEVER, scores[hidden.first]), hidden.codes[hidden.first])
    bootstrap = Bootstrap(hidden.bag.shape[0])
    everywhere = np.ones(len(hidden.codes), dtype=bool)
    figures = []
    for group, which, found in (
        ("all codes", everywhere, free),
        ("first occurrences", hidden.first, free),
        ("first occurrences, told", hidden.first, told),
    ):
        patients = hidden.patients[which]
        figures.append(Measurement(f"{group}: number", [len(patients)], "hidden codes"))
        hits = {(name, top): (rank[which] < top).astype(float) for name, rank in found.items() for top in (1, 10)}
        for (name, top), hit in hits.items():
            figures.append(Measurement(f"{group}: {name}, top {top}", bootstrap.interval(hit, patients), "share"))
        for better, than, goal in DIFFERENCES:
            gain = bootstrap.interval(hits[better, 1] - hits[than, 1], patients)
            at_least = goal if group == "all codes" else None
            figures.append(Measurement(f"{group}: {better} minus {than}, top 1", gain, "share", at_least=at_least))
    return figures


def pretrain(train: Path, val: Path, folder: Path, epochs: int) -> dict[str, float]:
    """Pretrain on the converted patients and return the metrics of the run; the model is in ``folder / "model"``."""
    flags = SMALL | {
        "forecast-prob": 0,
        "epochs": epochs,
        "eval-steps": 1000,
        "save-steps": 1000,
        "training-data": train,
    }
    flags |= {"validation-data": val, "output-dir": folder / "model", "output-data-dir": folder / "reports"}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run(script("pretrain-exmed-bert-clinvec.py", "--no-plos", *arguments), check=True)
    lines = (folder / "reports" / "eval_results.txt").read_text(encoding="utf-8").splitlines()
    return {name: float(value) for name, value in (line.split(" = ") for line in lines)}


def measure_all(folder: Path, patients: int, epochs: int) -> list[Measurement]:
    """Make the data, fit and train the predictors, and return all figures."""
    people = generate(folder / "patients.jsonl", patients, options=("--realistic",))
    made = convert(ConvertSettings(input=people, output=folder / "data.pt", max_length=MAX_LENGTH))
    train, val = made.datasets["train"], made.datasets["val"]
    size = len(train.info.vocabulary)

    start = time.perf_counter()
    seen, hidden = hidden_codes(train, MASKS), hidden_codes(val)
    by_frequency = frequency(seen, size)
    name, bag = best_bag_of_codes(seen, len(train), by_frequency)
    predictors = {
        "frequency": by_frequency(hidden),
        "copy": copy(by_frequency, train.info.vocabulary.entities)(hidden),
        "bag of codes": bag(hidden),
    }
    baseline_seconds = time.perf_counter() - start
    run = pretrain(made.paths["train"], made.paths["val"], folder, epochs)
    predictors["ExMed-BERT"] = bert_scores(folder / "model", val)
    return [
        Measurement("patients to train on", [len(train)], "patients"),
        Measurement("patients held out", [len(val)], "patients"),
        Measurement(f"patients cut to {MAX_LENGTH} codes", [made.summary.truncated], "patients"),
        Measurement(f"bag of codes: {name}; tuned and fitted in", [baseline_seconds], "s"),
        Measurement(f"ExMed-BERT: {epochs} epochs, trained in", [run["train_seconds"]], "s", at_most=15 * 60),
        Measurement("ExMed-BERT: training", [run["train_codes_per_second"]], "codes/s"),
        *accuracy_figures(hidden, predictors),
    ]


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--epochs", type=at_least_one, default=EPOCHS, help=f"of pretraining [default: {EPOCHS}]")
    parser.add_argument("--quick", action="store_true", help="2,000 patients and 3 epochs; keeps no results")
    given = parser.parse_args()
    quick = vars(given).pop("quick")
    if quick:
        given.patients, given.epochs = 2_000, 3
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_all(Path(folder), given.patients, given.epochs)
    if quick:
        print_figures(figures)
    else:
        report("learnability", given, load, figures)


if __name__ == "__main__":
    main()
