"""Does pretraining pay? Fine-tune with 300 and with all labels, against training from scratch and baselines.

    python benchmarks/finetuning.py                # 60,000 patients, 20,000 of them for pretraining
    python benchmarks/finetuning.py --realistic    # 200,000 realistic ones, 20,000 for pretraining; hours
    python benchmarks/finetuning.py --realistic --endpoints 12 --folder DIR    # some of the endpoints
    python benchmarks/finetuning.py --quick        # a check of the program itself, keeps no results; with either

Patients are generated (seed 42, realistic ones 11), converted and pretrained on by the project itself. The tasks: the
first occurrence of a code within a year of the last visit that has a year of follow-up, and prolonged stay (not of
realistic patients). Of the realistic patients the codes are all that at least 100 test patients get, of the 40 most
frequent chronic ones, or with --endpoints the first so many in an order by a hash of the code. All models learn from
the same labels, are tuned on the same validation patients, and are measured on the same test patients, which the
pretraining never saw; of these at most 20,000, by a hash. 300 labels are those of 200 training and 100 validation
patients, a tenth with the outcome (as in a case-control study: of 300 at random one or two would have it).

Each baseline stands there twice, the second time given the pretrained model's answer as a column.

Differences are means over the endpoints and the seeds. Their intervals resample patients, each with all their outcomes,
and seeds. Beside them stands how far the model is behind the risks that the outcomes were drawn with, among the test
patients who do not have the condition yet.

The pretraining has seen the whole histories of the training patients, and so the endpoints' codes in them.

With --folder what is finished is kept: the same command goes on. --minutes begins no further endpoint after so many, in
the order by a hash, so that the endpoints that are done are any of them.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import transformers
from common import Measurement, at_least_one, load_average, print_figures, report
from pretrained import LEAST_EVENTS, MOST_FREQUENT, SEED, fewer, first_found, frequent, patients_of, pretrain
from two_level import Draws, Ranked, differences

from exmed_bert.cohorts.cohort import build, subset
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import TEST
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.evaluation import baselines, calibration
from exmed_bert.evaluation.attainable import TrueRisks, true_risks
from exmed_bert.evaluation.features import features
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.finetuning.finetune import make_experiment
from exmed_bert.finetuning.options import SCRATCH, train_sizes
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.finetuning.results import unlabeled
from exmed_bert.finetuning.runs import Experiment, Finished, Run, load_best, train_one
from exmed_bert.models.folder import read_pretrained
from exmed_bert.settings import BASELINES, WITH_ANSWER, FinetuneSettings
from exmed_bert.staging import atomic_write
from exmed_bert.training.metrics_writer import MetricsWriter

BY_HAND = ("I50.9", "N18.30", "E11.65", "F33.1")
SIZES = "300,all"
SEEDS = 3
PLOS = "plos"
TIMED = 10_000  # training patients of the timed run
OURS, TRUE = "fine-tuned", "true risks"
_PLAIN = ("labels", "keys", "no_labels", "at_risk", "true_risk")  # arrays of a task


@dataclass(frozen=True)
class Case:
    """A task with what is shared by its runs, and what its test patients were drawn from, None where not known."""

    name: str
    settings: FinetuneSettings
    experiment: Experiment
    truth: TrueRisks | None

    @property
    def test(self) -> np.ndarray:
        """Rows of the test patients."""
        return self.experiment.patients.rows(TEST)

    @property
    def has_prompt(self) -> bool:
        """Whether the pretrained model ranks patients before any label is seen."""
        return bool(self.experiment.prompt.targets)


@dataclass(frozen=True)
class Found:
    """The results of a task; all arrays are of its test patients.

    Attributes:
        name: of the endpoint, or ``plos``.
        labels, keys: (n,) outcomes, and the hashes of the patients' ids.
        no_labels: (1, n) probabilities of the pretrained model; (0, n) without a prompt.
        scored: by number of labels, and by model, probabilities (S, n), one row per seed.
        errors: by number of labels the calibration errors of ours, (S,).
        at_risk, true_risk: (n,) as in `TrueRisks`; nobody is at risk where it is not known.
    """

    name: str
    labels: np.ndarray
    keys: np.ndarray
    no_labels: np.ndarray
    scored: dict[str, dict[str, np.ndarray]]
    errors: dict[str, np.ndarray]
    at_risk: np.ndarray
    true_risk: np.ndarray

    def auroc(self, probabilities: np.ndarray) -> float:
        """Return the AUROC of probabilities of the test patients."""
        return float(Ranked(self.labels, probabilities).auroc(np.ones((1, len(self.labels))))[0])

    def draws(self, scores: dict[str, np.ndarray]) -> Draws:
        """Return the test patients with scores."""
        return Draws(self.labels, self.keys, scores)

    def draws_beside_truth(self, scores: np.ndarray) -> Draws:
        """Return the test patients at risk with scores of ours, (S, n), and the true risks."""
        own = self.at_risk
        both = {TRUE: np.tile(self.true_risk[own], (len(scores), 1)), OURS: scores[:, own]}
        return Draws(self.labels[own], self.keys[own], both)

    def save(self, path: Path) -> None:
        """Write it to a file."""
        of_models = {f"{size}/{name}": own for size, by_model in self.scored.items() for name, own in by_model.items()}
        errors = {f"{size}/": own for size, own in self.errors.items()}
        with atomic_write(path) as part, open(part, "wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in _PLAIN}, **of_models, **errors)

    @classmethod
    def load(cls, path: Path) -> "Found":
        """Read it again; the file is named after the task."""
        scored: dict[str, dict[str, np.ndarray]] = {}
        errors: dict[str, np.ndarray] = {}
        with np.load(path) as content:
            for key in [key for key in content if key not in _PLAIN]:
                size, name = key.split("/")
                if name:
                    scored.setdefault(size, {})[name] = content[key]
                else:
                    errors[size] = content[key]
            plain = {name: content[name] for name in _PLAIN}
        return cls(path.stem, scored=scored, errors=errors, **plain)


def make_case(name: str, folder: Path, model_dir: Path) -> Case:
    """Build the cohort of an endpoint, or of prolonged stay."""
    what = {"task": PLOS} if name == PLOS else {"endpoint": name}
    settings = FinetuneSettings(input=patients_of(folder), model_dir=model_dir, **what)  # type: ignore[arg-type]
    model, form = read_pretrained(model_dir)
    task = requested_task(settings)
    cohort = build(
        PatientInput(settings.input, settings, form.static_columns), task, form, settings.min_history, settings.seed
    )
    cohort = replace(cohort, patients=fewer(cohort.patients))
    experiment, _ = make_experiment(settings, cohort, task, form, model)
    truth, outcome = None, task.generated_outcome
    if outcome is not None:
        if outcome.codes is not None:
            outcome = replace(outcome, codes=(name,))
        try:
            truth = true_risks(cohort.meta, outcome, subset(cohort.patients, cohort.patients.rows(TEST)))
        except InputError:
            truth = None
    return Case(name, settings, experiment, truth)


def scores(
    case: Case, runs: Path, size: int | None, seeds: Sequence[int], answer: np.ndarray | None, writer: MetricsWriter
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Train everything on so many labels.

    Args:
        case: the task.
        runs: the folder of the runs.
        size, seeds: of the labels that are drawn.
        answer: (N,) of the pretrained model, None without a prompt.
        writer: takes the metrics.

    Returns:
        Each model's probabilities of the test patients, (S, n), and the calibration errors of ours, (S,).
    """
    found: dict[str, list[np.ndarray]] = {}
    errors = []
    patients = case.experiment.patients
    for seed in seeds:
        drawn = draw_subset(patients, size, seed)
        for kind in (OURS, SCRATCH):
            run = Run(kind, size, seed)
            folder, prefix = runs / case.name / run.name, f"{case.name}/{run.name}/"
            done = train_one(run, case.experiment, folder, lambda: writer, prefix)
            found.setdefault(kind, []).append(sigmoid(done.logits))
            if kind == OURS:
                errors.append(calibration_error(case, done, drawn))
        table = features(patients, drawn.train)
        for given, name in product([None] if answer is None else [None, answer], BASELINES):
            fitted = baselines.fit(name, patients, drawn.train, drawn.validation, seed, given, table)
            found.setdefault(fitted.name, []).append(fitted.probabilities[case.test])
        aurocs = {
            name: Predictions(patients.labels[case.test], own[-1]).measure()["auroc"] for name, own in found.items()
        }
        shown = ", ".join(f"{name} {auroc:.4f}" for name, auroc in aurocs.items())
        print(f"{case.name}, {told(size)} labels, seed {seed}: {shown}", flush=True)
    return {name: np.stack(own) for name, own in found.items()}, np.array(errors)


def told(size: int | None) -> str:
    """Return a number of labels in a word."""
    return str(size or "all")


def find(name: str, folder: Path, model_dir: Path, given: argparse.Namespace, deadline: float) -> Found | None:
    """Measure one task, or read what was found of it before; None where it has too few events, or time is over."""
    kept, skipped = folder / "found" / f"{name}.npz", folder / "found" / f"{name}.skipped"
    if kept.exists():
        return Found.load(kept)
    if skipped.exists() or time.time() > deadline:
        return None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    case = make_case(name, folder, model_dir)
    runs, patients = folder / "runs", case.experiment.patients
    labels = patients.labels[case.test]
    if given.realistic and name != PLOS and labels.sum() < given.least_events:
        skipped.parent.mkdir(exist_ok=True)
        skipped.write_text(f"{int(labels.sum())} test patients with the outcome\n", encoding="utf-8")
        return None
    answer = unlabeled(case.experiment)
    nobody = np.zeros(len(labels), dtype=bool)
    scored, errors = {}, {}
    with MetricsWriter(folder / "reports" / name, "finetuning", name, 0) as writer:
        for size in train_sizes(given.sizes):
            if size is None or answer is not None:
                seeds = range(SEED, SEED + (1 if size is None else given.seeds))
                key = told(size)
                scored[key], errors[key] = scores(case, runs, size, seeds, answer, writer)
    found = Found(
        name=name,
        labels=labels,
        keys=patients.dataset.columns["patient_hashes"].numpy()[case.test],
        no_labels=np.zeros((0, len(labels))) if answer is None else sigmoid(answer[case.test])[None],
        scored=scored,
        errors=errors,
        at_risk=nobody if case.truth is None else case.truth.at_risk,
        true_risk=nobody.astype(float) if case.truth is None else case.truth.risk,
    )
    kept.parent.mkdir(exist_ok=True)
    found.save(kept)
    return found


def compare(what: str, endpoints: list[Draws]) -> list[Measurement]:
    """Return the mean AUROC of each model, and the differences of ours from each other one."""
    figures = []
    found = differences(endpoints, OURS)
    for name in endpoints[0].scores:
        figures.append(Measurement(f"{what}: {name}, mean AUROC", [found[name][0]], "AUROC"))
    for name in endpoints[0].scores:
        if name == OURS:
            continue
        gain = found[name][1]
        low, high = gain.interval or (gain.value, gain.value)
        figures.append(Measurement(f"{what}: {OURS} minus {name}", [low, gain.value, high], "AUROC"))
        if not name.endswith(WITH_ANSWER):
            figures.append(Measurement(f"{what}: {OURS} minus {name}, lower end", [low], "AUROC", at_least=0.0))
    return figures


def beside_truth(what: str, endpoints: list[Draws]) -> list[Measurement]:
    """Return the mean AUROC of the true risks and how far ours is behind, among the test patients at risk."""
    if not endpoints:
        return []
    mean, gain = differences(endpoints, OURS)[TRUE]
    low, high = gain.interval or (gain.value, gain.value)
    return [
        Measurement(f"{what}, at risk: {TRUE}, mean AUROC", [mean], "AUROC"),
        Measurement(f"{what}, at risk: {TRUE} minus {OURS}", [-high, -gain.value, -low], "AUROC", at_most=0.02),
    ]


def calibration_error(case: Case, done: Finished, drawn: Subset) -> float:
    """Return the calibration error of our model as the report has it: recalibrated, and the sampling undone."""
    experiment, patients = case.experiment, case.experiment.patients
    fitted = calibration.Calibration(bias=-drawn.pooled_offset)
    if not done.calibrated:
        rows = LabeledRows(patients, drawn.validation)
        logits = predict(load_best(done, experiment), rows, experiment.collator, case.settings.eval_batch_size)
        fitted = calibration.fit(patients.labels[drawn.validation], logits)
        fitted = replace(fitted, bias=fitted.bias - drawn.log_odds_offset)
    tested = Predictions(patients.labels[case.test], fitted.probabilities(done.logits))
    return tested.measure()["calibration_error"]


def timed(folder: Path, model_dir: Path, name: str, labels: int) -> Measurement:
    """Fine-tune for one endpoint with so many labels, with nothing else at work."""
    case = make_case(name, folder, model_dir)
    run = Run(OURS, labels, SEED)
    with tempfile.TemporaryDirectory() as fresh, MetricsWriter(Path(fresh), "finetuning", "timed", 0) as writer:
        start = time.perf_counter()
        train_one(run, case.experiment, Path(fresh) / run.name, lambda: writer, "timed/")
        seconds = time.perf_counter() - start
    return Measurement(f"fine-tuning with {labels:,} labels", [seconds], "s", at_most=180)


def figures_of(found: list[Found]) -> list[Measurement]:
    """Return all figures but the time."""
    endpoints, plos = ([of for of in found if (of.name == PLOS) == is_plos] for is_plos in (False, True))
    figures = [Measurement("endpoints", [len(endpoints)], "codes")]
    for of in found:
        figures.append(Measurement(f"{of.name}: test patients", [len(of.labels)], "patients"))
        figures.append(Measurement(f"{of.name}: with the outcome", [int(of.labels.sum())], "patients"))
        if of.at_risk.any():
            figures.append(Measurement(f"{of.name}: at risk, with it", [int(of.labels[of.at_risk].sum())], "patients"))
    for of in endpoints:
        figures.append(Measurement(f"{of.name}: no labels", [of.auroc(of.no_labels[0])], "AUROC"))
        for size, by_model in of.scored.items():
            for name, drawn in by_model.items():
                aurocs = [of.auroc(one) for one in drawn]
                figures.append(Measurement(f"{of.name}, {size} labels: {name}", aurocs, "AUROC"))
    if endpoints:
        aurocs = [of.auroc(of.no_labels[0]) for of in endpoints]
        figures.append(Measurement("no labels: mean AUROC", [float(np.mean(aurocs))], "AUROC"))
        known = [of for of in endpoints if of.labels[of.at_risk].sum() > 0]
        figures += beside_truth("no labels", [of.draws_beside_truth(of.no_labels) for of in known])
        for size in endpoints[0].scored:
            figures += compare(f"{size} labels", [of.draws(of.scored[size]) for of in endpoints])
            errors = [float(of.errors[size].mean()) for of in endpoints]
            figures.append(Measurement(f"{size} labels: calibration error", errors, "", at_most=0.03))
            of_truth = [of.draws_beside_truth(of.scored[size][OURS]) for of in known]
            figures += beside_truth(f"{size} labels", of_truth)
    for of in plos:
        for size, by_model in of.scored.items():
            for name, own in by_model.items():
                figures.append(Measurement(f"plos, {size} labels: {name}", [of.auroc(one) for one in own], "AUROC"))
            truth = [of.draws_beside_truth(by_model[OURS])] if of.at_risk.any() else []
            figures += beside_truth(f"plos, {size} labels", truth)
    return figures


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realistic", action="store_true", help="realistic patients, and all their frequent endpoints")
    parser.add_argument("--patients", type=at_least_one, help="how many [default: 60,000, realistic 200,000]")
    parser.add_argument("--pretrained", type=at_least_one, default=20_000, help="of them, for pretraining [20,000]")
    parser.add_argument("--population-seed", type=int, help="of the patients [default: 42, realistic 11]")
    parser.add_argument("--epochs", type=at_least_one, default=30, help="of pretraining [default: 30]")
    parser.add_argument("--sizes", default=SIZES, help=f"labels, of training and validation [default: {SIZES}]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"draws of few labels [default: {SEEDS}]")
    parser.add_argument("--endpoints", type=at_least_one, help="most of them [default: all]")
    parser.add_argument(
        "--least-events", type=at_least_one, default=LEAST_EVENTS, help="of an endpoint's test patients"
    )
    parser.add_argument("--jobs", type=int, default=-1, help="endpoints at a time [default: one per core]")
    parser.add_argument("--minutes", type=float, help="begin no further endpoint after so many")
    parser.add_argument("--folder", type=Path, help="where patients, model and runs are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick, jobs, minutes = given.folder, given.quick, given.jobs, given.minutes
    del given.folder, given.quick, given.jobs, given.minutes
    if quick:
        given.patients, given.pretrained, given.epochs, given.seeds, given.sizes = 3000, 1000, 1, 2, "150,all"
        given.population_seed, given.least_events = given.population_seed or 3, 8
        if given.realistic:
            given.patients, given.pretrained = 8000, 2500
    given.patients = given.patients or (200_000 if given.realistic else 60_000)
    if given.population_seed is None:
        given.population_seed = 11 if given.realistic else 42
    deadline = time.time() + 60 * minutes if minutes else float("inf")
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trained_on, options = given.pretrained / given.patients, ["--realistic"] if given.realistic else []
        model_dir = pretrain(folder, given.patients, given.epochs, trained_on, given.population_seed, options)
        endpoints = frequent(patients_of(folder), 3 if quick else MOST_FREQUENT) if given.realistic else list(BY_HAND)
        if quick and not given.realistic:
            endpoints = ["I10"]
        tasks = endpoints if given.realistic else [PLOS, *endpoints]
        measure = partial(find, folder=folder, model_dir=model_dir, given=given, deadline=deadline)
        found = first_found(measure, tasks, jobs, given.endpoints)
        figures = figures_of(found)
        if not given.realistic:
            figures.append(timed(folder, model_dir, endpoints[0], 300 if quick else TIMED))
    if quick:
        print_figures(figures)
    else:
        name, flag = ("finetuning_realistic", " --realistic") if given.realistic else ("finetuning", "")
        own = {"endpoints": given.endpoints, "minutes": minutes, "sizes": None if given.sizes == SIZES else given.sizes}
        flag += "".join(f" --{option} {value}" for option, value in own.items() if value)
        command = f"python benchmarks/finetuning.py{flag}"
        print(f"{command}: {', '.join(of.name for of in found)}")
        report(name, given, load, figures, command)


if __name__ == "__main__":
    main()
