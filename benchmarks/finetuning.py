"""Does pretraining pay? Fine-tune with 300 and with all labels, against training from scratch and baselines.

    python benchmarks/finetuning.py            # 60,000 patients, of whom 20,000 are pretrained on; about 40 minutes
    python benchmarks/finetuning.py --quick    # a check of the program itself, keeps no results

Patients are generated (seed 42), converted and pretrained on by the project itself. What is predicted: the first
occurrence of a code within a year of the last visit that has a year of observation behind it, and prolonged stay. All
models learn from the same labels, are tuned on the same validation patients, no more than there are training labels,
and are measured on the same test patients, whom the pretraining never saw. 300 labels hold 30 patients with the outcome
(as in a case-control study: of 300 at random one or two would have it). Differences are means over the endpoints and
the seeds; their intervals resample patients, each with all that is predicted of them.

The pretraining has seen the whole histories of the training patients, and so the endpoints' codes in them.
"""

import argparse
import contextlib
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import Figure, at_least_one, generate, load_average, print_figures, report, run_quietly, script

from exmed_bert.config import FinetuneSettings
from exmed_bert.data.cohort import Cohort, Question, build
from exmed_bert.data.io import read_patients
from exmed_bert.data.labelled import TEST, VALIDATION
from exmed_bert.data.questions import LabelledRows
from exmed_bert.evaluation import baselines, calibration
from exmed_bert.evaluation.bootstrap import Comparison, mean_paired_differences
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.synthetic import tables
from exmed_bert.synthetic.outcome import of_ages, of_diagnoses
from exmed_bert.training.finetune import SCRATCH, asked_question, make_task
from exmed_bert.training.finetune_plan import draw_subset
from exmed_bert.training.finetune_runs import Run, Task, load_best, train_one
from exmed_bert.training.outcome_model import outcome_model, predict
from exmed_bert.training.pretrained import model_input
from exmed_bert.training.start import load_pretrained
from exmed_bert.training.tracking import MetricsWriter

PATIENTS, TRAINED_ON = 60_000, 1 / 3
ENDPOINTS = ("I50.9", "N18.30", "E11.65", "F33.1")
FEW = 300
SEEDS = 3
TIMED = 10_000  # training patients of the timed run
LAST_YEAR = 2025  # of the population's window: age then decides about prolonged stays
MAX_LENGTH = 80
MODEL = {
    "train-batch-size": 64,
    "hidden-size": 64,
    "num-hidden-layers": 3,
    "num-attention-heads": 4,
    "learning-rate": 0.003,
    "ahead-prob": 0.7,
}
OURS = "fine-tuned"


@dataclass(frozen=True)
class Asked:
    """One prediction: its cohort and what is shared by its runs."""

    name: str
    settings: FinetuneSettings
    cohort: Cohort
    task: Task
    question: Question

    @property
    def test(self) -> np.ndarray:
        """Rows of the test patients."""
        return self.task.patients.rows(TEST)

    @property
    def labels(self) -> np.ndarray:
        """Their labels."""
        return self.task.patients.labels[self.test]

    def comparison(self, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
        """Pair the probabilities that two models give the test patients."""
        keys = self.task.patients.dataset.columns["keys"].numpy()[self.test]
        return Comparison(self.labels, ours, theirs, keys)

    def auroc(self, probabilities: np.ndarray) -> float:
        """Return the AUROC of the test patients."""
        return Predictions(self.labels, probabilities).measure()["auroc"]


def pretrain(folder: Path, patients: int, epochs: int) -> Path:
    """Make patients and model, unless they are there; return the folder of the model."""
    model = folder / "model"
    if (model / "pretraining.json").is_file():
        return model
    people = generate(folder / "patients.jsonl", patients)
    data = folder / "data.pt"
    conversion = ("--input", people, "--output", data, "--max-length", MAX_LENGTH, "--train-ratio", f"{TRAINED_ON:.4f}")
    run_quietly(script("convert_synthetic_to_dataset.py", *conversion))
    flags = MODEL | {"epochs": epochs, "eval-steps": 2000, "save-steps": 2000, "eval-max-patients": 2000}
    flags |= {"training-data": folder / "data_train.pt", "validation-data": folder / "data_val.pt"}
    flags |= {"output-dir": model, "output-data-dir": folder / "reports"}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run(script("pretrain-exmed-bert-clinvec.py", *arguments), check=True)
    return model


def ask(name: str, folder: Path, model_dir: Path) -> Asked:
    """Build the cohort of an endpoint, or of prolonged stay."""
    what = {"task": "plos"} if name == "plos" else {"endpoint": name}
    settings = FinetuneSettings(input=folder / "patients.jsonl", model_dir=model_dir, **what)  # type: ignore[arg-type]
    model, _ = load_pretrained(model_dir)
    form = model_input(model_dir, model.config)
    question = asked_question(settings)
    cohort = build(settings.input, question, form, settings.min_history, settings.seed)
    task, _ = make_task(settings, cohort, question, form, model)
    return Asked(name, settings, cohort, task, question)


def scores(asked: Asked, runs: Path, size: int | None, seed: int, writer: MetricsWriter) -> dict[str, np.ndarray]:
    """Train everything on so many labels; return each model's probabilities of the test patients."""
    found = {}
    for kind in (OURS, SCRATCH):
        run = Run(kind, size, seed)
        done = train_one(run, asked.task, runs / asked.name / run.name, lambda: writer, f"{asked.name}/{run.name}/")
        found[kind] = sigmoid(done.logits)
        print(f"{asked.name}, {run.name}: AUROC {asked.auroc(found[kind]):.4f}", flush=True)
    subset = draw_subset(asked.task.patients, size, seed)
    for name in baselines.BASELINES:
        fitted = baselines.fit(name, asked.task.patients, subset.train, subset.validation, seed)
        found[name] = fitted.probabilities[asked.test]
        print(f"{asked.name}, {name}, {size or 'all'}, {seed}: AUROC {asked.auroc(found[name]):.4f}", flush=True)
    return found


def unlabelled(asked: Asked) -> np.ndarray:
    """Return the answers of the pretrained model, before any label was seen, to the test patients."""
    task = asked.task
    model = outcome_model(task.pretrained, "ffn", task.question, task.plos, from_scratch=False, seed=0).eval()
    rows = LabelledRows(task.patients, asked.test)
    return sigmoid(predict(model, rows, task.collator, asked.settings.eval_batch_size))


def compare(what: str, found: list[tuple[Asked, dict[str, np.ndarray]]], target: bool) -> list[Figure]:
    """Return the mean AUROC of each model, and the differences of ours from each other one."""
    names = list(found[0][1])
    figures = []
    for name in names:
        aurocs = [asked.auroc(scored[name]) for asked, scored in found]
        figures.append(Figure(f"{what}: {name}, mean AUROC", [float(np.mean(aurocs))], "AUROC"))
    for name in names[1:]:
        pairs = [asked.comparison(scored[OURS], scored[name]) for asked, scored in found]
        difference = mean_paired_differences(pairs, ("auroc",))["auroc"]
        sample = [difference.low, difference.value, difference.high]
        goal = {"at_least": 0.0} if target else {"at_least": -0.005} if name in baselines.BASELINES else {}
        figures.append(Figure(f"{what}: {OURS} minus {name}", sample, "AUROC", **goal))
    return figures


def generating_odds(path: Path, asked: Asked) -> np.ndarray:
    """Return the log odds of a prolonged stay that the population was drawn with, for the test patients."""
    known = tables.load()
    weights = dict(zip(known.diagnoses.codes, of_diagnoses(known), strict=True))
    odds: dict[str, float] = {}
    for patients in read_patients(path):
        weight = np.array([weights.get(code, 0.0) for code in patients.diagnoses.table])
        owner = np.repeat(np.arange(len(patients)), patients.diagnoses.counts())
        pairs = np.unique(np.stack((owner, patients.diagnoses.codes)), axis=1)  # each diagnosis of a patient once
        total = np.bincount(pairs[0], weights=weight[pairs[1]], minlength=len(patients))
        total += of_ages(known.prolonged_stay, LAST_YEAR - patients.birth_years)
        odds.update(zip(map(str, patients.patient_ids), total.tolist(), strict=True))
    return np.array([odds[str(asked.task.patients.dataset.patient_id(row))] for row in asked.test])


def calibration_error(asked: Asked, runs: Path) -> float:
    """Return the calibration error of our model with all labels, after temperature scaling on validation patients."""
    run = Run(OURS, None, asked.settings.seed)
    done = train_one(run, asked.task, runs / asked.name / run.name, _no_writer, "")
    validation = asked.task.patients.rows(VALIDATION)
    rows = LabelledRows(asked.task.patients, validation)
    logits = predict(load_best(done, asked.task), rows, asked.task.collator, asked.settings.eval_batch_size)
    fitted = calibration.fit(asked.task.patients.labels[validation], logits)
    return Predictions(asked.labels, fitted.probabilities(done.logits)).measure()["calibration_error"]


def _no_writer() -> MetricsWriter:
    raise AssertionError("the run is finished: nothing is written")


def measure_all(folder: Path, patients: int, epochs: int, seeds: int, timed: int) -> list[Figure]:
    """Return all figures."""
    model_dir = pretrain(folder, patients, epochs)
    runs = folder / "runs"
    figures: list[Figure] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(MetricsWriter(folder / "finetuning", "benchmark", "benchmark", 0))
        everything = [ask(name, folder, model_dir) for name in (*ENDPOINTS, "plos")]
        for asked in everything:
            counts = (len(asked.test), int(asked.labels.sum()))
            figures.append(Figure(f"{asked.name}: test patients", [counts[0]], "patients"))
            figures.append(Figure(f"{asked.name}: with the outcome", [counts[1]], "patients"))
            figures.append(Figure(f"{asked.name}: no labels", [asked.auroc(unlabelled(asked))], "AUROC"))
        endpoints, plos = everything[:-1], everything[-1]

        few = [(asked, scores(asked, runs, FEW, seed, writer)) for asked in endpoints for seed in range(42, 42 + seeds)]
        figures += compare(f"{FEW} labels", few, target=True)
        all_labels = [(asked, scores(asked, runs, None, 42, writer)) for asked in endpoints]
        figures += compare("all labels", all_labels, target=False)
        errors = [calibration_error(asked, runs) for asked in endpoints]
        figures.append(Figure("all labels: calibration error after temperature scaling", errors, "", at_most=0.03))

        scored = scores(plos, runs, None, 42, writer)
        truth = plos.auroc(sigmoid(generating_odds(folder / "patients.jsonl", plos)))
        figures.append(Figure("plos: the generating coefficients", [truth], "AUROC"))
        figures += [Figure(f"plos: {name}", [plos.auroc(found)], "AUROC") for name, found in scored.items()]
        behind = truth - plos.auroc(scored[OURS])
        figures.append(Figure("plos: generating coefficients minus fine-tuned", [behind], "AUROC", at_most=0.02))

        start = time.perf_counter()
        run = Run(OURS, timed, 42)
        train_one(run, endpoints[0].task, runs / "timed" / run.name, lambda: writer, "timed/")
        figures.append(Figure(f"fine-tuning on {timed:,} patients", [time.perf_counter() - start], "s", at_most=180))
    return figures


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--epochs", type=at_least_one, default=20, help="of pretraining [default: 20]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"at {FEW} labels [default: {SEEDS}]")
    parser.add_argument("--folder", type=Path, help="where patients, model and runs are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick = given.folder, given.quick
    del given.folder, given.quick
    if quick:
        given.patients, given.epochs, given.seeds = 20_000, 1, 1
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        figures = measure_all(folder, given.patients, given.epochs, given.seeds, 300 if quick else TIMED)
    if quick:
        print_figures(figures)
    else:
        report("finetuning", given, load, figures)


if __name__ == "__main__":
    main()
