"""Does pretraining pay? Fine-tune with 300 and with all labels, against training from scratch and baselines.

    python benchmarks/finetuning.py            # 60,000 patients, 20,000 of them for pretraining; half an hour
    python benchmarks/finetuning.py --quick    # a check of the program itself, keeps no results

Patients are generated (seed 42), converted and pretrained on by the project itself. The tasks: the first occurrence of
a code within a year of the last visit that has a year of follow-up, and prolonged stay. All models learn from the same
labels, are tuned on the same validation patients, no more than there are training labels, and are measured on the same
test patients, which the pretraining never saw. 300 labels hold 30 patients with the outcome (as in a case-control
study: of 300 at random one or two would have it). Differences are means over the endpoints and the seeds; their
intervals resample patients, each with all their outcomes.

The pretraining has seen the whole histories of the training patients, and so the endpoints' codes in them.
"""

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import transformers
from common import Measurement, at_least_one, generate, load_average, print_figures, report, run_quietly, script
from joblib import Parallel, delayed

from exmed_bert.codes import ICD10CM
from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import TEST, VALIDATION
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.data.patient_input import PatientInput, read_patients
from exmed_bert.evaluation import baselines, calibration
from exmed_bert.evaluation.bootstrap import PairedPredictions, mean_paired_differences
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.finetuning.finetune import make_experiment
from exmed_bert.finetuning.options import SCRATCH
from exmed_bert.finetuning.outcome_model import outcome_model, predict
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.finetuning.runs import Experiment, Run, load_best, train_one
from exmed_bert.models.folder import read_pretrained
from exmed_bert.reference import tables
from exmed_bert.settings import BASELINES, FinetuneSettings
from exmed_bert.synthetic.outcome import of_ages, of_diagnoses
from exmed_bert.training.metrics_writer import MetricsWriter

PATIENTS, TRAINED_ON = 60_000, 1 / 3
ENDPOINTS = ("I50.9", "N18.30", "E11.65", "F33.1")
FEW = 300
SEED, SEEDS = 42, 3
PLOS = "plos"
TIMED = 10_000  # training patients of the timed run
LAST_YEAR = 2025  # of the population's window: age then decides about prolonged stays
MAX_LENGTH = 80
MODEL = {
    "train-batch-size": 64,
    "hidden-size": 64,
    "num-hidden-layers": 3,
    "num-attention-heads": 4,
    "learning-rate": 0.003,
    "forecast-prob": 0.8,
}
OURS = "fine-tuned"


@dataclass(frozen=True)
class Case:
    """A task with what is shared by its runs."""

    name: str
    settings: FinetuneSettings
    experiment: Experiment

    @property
    def test(self) -> np.ndarray:
        """Rows of the test patients."""
        return self.experiment.patients.rows(TEST)

    @property
    def has_prompt(self) -> bool:
        """Whether the pretrained model ranks patients before any label is seen."""
        return bool(self.experiment.target_codes)


@dataclass(frozen=True)
class Found:
    """The results of a task; all arrays are of its test patients.

    Attributes:
        name: of the endpoint, or ``plos``.
        labels, keys: (n,) outcomes, and the hashes of the patients' ids.
        no_labels: (n,) probabilities of the pretrained model; None without a prompt.
        few, all_labels: probabilities, (n,) each, by model; ``few`` one per draw.
        calibration_error: of ours with all labels, after temperature scaling on validation patients.
        truth: (n,) the odds that prolonged stays were drawn with.
    """

    name: str
    labels: np.ndarray
    keys: np.ndarray
    no_labels: np.ndarray | None
    few: list[dict[str, np.ndarray]]
    all_labels: dict[str, np.ndarray]
    calibration_error: float
    truth: np.ndarray | None

    def auroc(self, probabilities: np.ndarray) -> float:
        """Return the AUROC of probabilities of the test patients."""
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


def make_case(name: str, folder: Path, model_dir: Path) -> Case:
    """Build the cohort of an endpoint, or of prolonged stay."""
    what = {"task": PLOS} if name == PLOS else {"endpoint": name}
    settings = FinetuneSettings(input=folder / "patients.jsonl", model_dir=model_dir, **what)  # type: ignore[arg-type]
    model, form = read_pretrained(model_dir)
    task = requested_task(settings)
    cohort = build(
        PatientInput(settings.input, settings, form.static_columns), task, form, settings.min_history, settings.seed
    )
    experiment, _ = make_experiment(settings, cohort, task, form, model)
    return Case(name, settings, experiment)


def scores(case: Case, runs: Path, size: int | None, seed: int, writer: MetricsWriter) -> dict[str, np.ndarray]:
    """Train everything on so many labels; return each model's probabilities of the test patients."""
    found = {}
    for kind in (OURS, SCRATCH):
        run = Run(kind, size, seed)
        done = train_one(run, case.experiment, runs / case.name / run.name, lambda: writer, f"{case.name}/{run.name}/")
        found[kind] = sigmoid(done.logits)
    subset = draw_subset(case.experiment.patients, size, seed)
    for name in BASELINES:
        fitted = baselines.fit(name, case.experiment.patients, subset.train, subset.validation, seed)
        found[name] = fitted.probabilities[case.test]
    labels = case.experiment.patients.labels[case.test]
    aurocs = {name: Predictions(labels, scored).measure()["auroc"] for name, scored in found.items()}
    told = ", ".join(f"{name} {auroc:.4f}" for name, auroc in aurocs.items())
    print(f"{case.name}, {size or 'all'} labels, seed {seed}: {told}", flush=True)
    return found


def unlabeled(case: Case) -> np.ndarray:
    """Return the pretrained model's probabilities of the test patients, before any label was seen."""
    experiment = case.experiment
    model = outcome_model(experiment.pretrained, "ffn", experiment.target_codes, from_scratch=False, seed=0).eval()
    rows = LabeledRows(experiment.patients, case.test)
    return sigmoid(predict(model, rows, experiment.collator, case.settings.eval_batch_size))


def find(name: str, folder: Path, model_dir: Path, few: int, seeds: int) -> Found:
    """Measure one task."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    case = make_case(name, folder, model_dir)
    runs, patients = folder / "runs", case.experiment.patients
    draws = range(SEED, SEED + seeds) if case.has_prompt else []
    with MetricsWriter(folder / "reports" / name, "finetuning", name, 0) as writer:
        return Found(
            name=name,
            labels=patients.labels[case.test],
            keys=patients.dataset.columns["patient_hashes"].numpy()[case.test],
            no_labels=unlabeled(case) if case.has_prompt else None,
            few=[scores(case, runs, few, seed, writer) for seed in draws],
            all_labels=scores(case, runs, None, SEED, writer),
            calibration_error=calibration_error(case, runs),
            truth=generating_odds(folder / "patients.jsonl", case) if name == PLOS else None,
        )


def compare(what: str, found: list[tuple[Found, dict[str, np.ndarray]]], target: bool) -> list[Measurement]:
    """Return the mean AUROC of each model, and the differences of ours from each other one."""
    names = list(found[0][1])
    figures = []
    for name in names:
        aurocs = [of.auroc(scored[name]) for of, scored in found]
        figures.append(Measurement(f"{what}: {name}, mean AUROC", [float(np.mean(aurocs))], "AUROC"))
    for name in names[1:]:
        pairs = [PairedPredictions(of.labels, scored[OURS], scored[name], of.keys) for of, scored in found]
        difference = mean_paired_differences(pairs, ("auroc",))["auroc"]
        sample = [difference.low, difference.value, difference.high]
        goal = {"at_least": -0.005} if name in BASELINES and not target else {}
        figures.append(Measurement(f"{what}: {OURS} minus {name}", sample, "AUROC", **goal))
        if target:
            figures.append(Measurement(f"{what}: {OURS} minus {name}, lower end", sample[:1], "AUROC", at_least=0.0))
    return figures


def generating_odds(path: Path, case: Case) -> np.ndarray:
    """Return the log odds of a prolonged stay that the population was drawn with, for the test patients."""
    known = tables.load()
    weights = dict(zip(known.diagnoses.codes, of_diagnoses(known), strict=True))
    odds: dict[str, float] = {}
    for patients in read_patients(path):
        diagnoses = patients.events.of_system(ICD10CM)
        weight = np.array([weights.get(code, 0.0) for _, code in diagnoses.table])
        pairs = np.unique(np.stack((diagnoses.patients(), diagnoses.codes)), axis=1)  # each code of a patient once
        total = np.bincount(pairs[0], weights=weight[pairs[1]], minlength=len(patients))
        total += of_ages(known.prolonged_stay, LAST_YEAR - patients.birth_years)
        odds.update(zip(map(str, patients.patient_ids), total.tolist(), strict=True))
    return np.array([odds[str(case.experiment.patients.dataset.patient_id(row))] for row in case.test])


def calibration_error(case: Case, runs: Path) -> float:
    """Return the calibration error of our model with all labels, after temperature scaling on validation patients."""
    run = Run(OURS, None, SEED)
    done = train_one(run, case.experiment, runs / case.name / run.name, _no_writer, "")  # `scores` has trained it
    validation = case.experiment.patients.rows(VALIDATION)
    rows = LabeledRows(case.experiment.patients, validation)
    logits = predict(load_best(done, case.experiment), rows, case.experiment.collator, case.settings.eval_batch_size)
    fitted = calibration.fit(case.experiment.patients.labels[validation], logits)
    tested = Predictions(case.experiment.patients.labels[case.test], fitted.probabilities(done.logits))
    return tested.measure()["calibration_error"]


def _no_writer() -> MetricsWriter:
    raise AssertionError("the run is finished: nothing is written")


def timed(folder: Path, model_dir: Path, name: str, labels: int) -> Measurement:
    """Fine-tune for one endpoint on so many patients, with nothing else at work."""
    case = make_case(name, folder, model_dir)
    run = Run(OURS, labels, SEED)
    with tempfile.TemporaryDirectory() as fresh, MetricsWriter(Path(fresh), "finetuning", "timed", 0) as writer:
        start = time.perf_counter()
        train_one(run, case.experiment, Path(fresh) / run.name, lambda: writer, "timed/")
        seconds = time.perf_counter() - start
    return Measurement(f"fine-tuning on {labels:,} patients", [seconds], "s", at_most=180)


def figures_of(found: list[Found], few: int) -> list[Measurement]:
    """Return all figures but the time."""
    endpoints, plos = found[:-1], found[-1]
    figures: list[Measurement] = []
    for of in found:
        figures.append(Measurement(f"{of.name}: test patients", [len(of.labels)], "patients"))
        figures.append(Measurement(f"{of.name}: with the outcome", [int(of.labels.sum())], "patients"))
    for of in endpoints:
        figures.append(Measurement(f"{of.name}: no labels", [of.auroc(of.no_labels)], "AUROC"))
        for name in of.all_labels:
            figures.append(
                Measurement(f"{of.name}, {few} labels: {name}", [of.auroc(d[name]) for d in of.few], "AUROC")
            )
        for name, scored in of.all_labels.items():
            figures.append(Measurement(f"{of.name}, all labels: {name}", [of.auroc(scored)], "AUROC"))
    figures += compare(f"{few} labels", [(of, draw) for of in endpoints for draw in of.few], target=True)
    figures += compare("all labels", [(of, of.all_labels) for of in endpoints], target=False)
    errors = [of.calibration_error for of in endpoints]
    figures.append(Measurement("all labels: calibration error after temperature scaling", errors, "", at_most=0.03))

    truth = plos.auroc(sigmoid(plos.truth))
    figures.append(Measurement("plos: the generating coefficients", [truth], "AUROC"))
    figures += [Measurement(f"plos: {name}", [plos.auroc(scored)], "AUROC") for name, scored in plos.all_labels.items()]
    behind = truth - plos.auroc(plos.all_labels[OURS])
    figures.append(Measurement("plos: generating coefficients minus fine-tuned", [behind], "AUROC", at_most=0.02))
    return figures


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--epochs", type=at_least_one, default=30, help="of pretraining [default: 30]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"at {FEW} labels [default: {SEEDS}]")
    parser.add_argument("--folder", type=Path, help="where patients, model and runs are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick = given.folder, given.quick
    del given.folder, given.quick
    if quick:
        given.patients, given.epochs, given.seeds = 3000, 1, 1
    endpoints, few = (("I10",), 100) if quick else (ENDPOINTS, FEW)
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        model_dir = pretrain(folder, given.patients, given.epochs)
        jobs = (delayed(find)(name, folder, model_dir, few, given.seeds) for name in (*endpoints, PLOS))
        figures = figures_of(Parallel(n_jobs=-1)(jobs), few)
        figures.append(timed(folder, model_dir, endpoints[0], 300 if quick else TIMED))
    if quick:
        print_figures(figures)
    else:
        report("finetuning", given, load, figures)


if __name__ == "__main__":
    main()
