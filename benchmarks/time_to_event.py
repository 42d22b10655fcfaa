"""Time to event: a pretrained model that is fine-tuned to hazards, compared with Cox's regression and boosted hazards.

    python benchmarks/time_to_event.py                 # 200,000 realistic patients, 20,000 for pretraining; hours
    python benchmarks/time_to_event.py --endpoints 10 --folder DIR    # some of the endpoints
    python benchmarks/time_to_event.py --quick         # a check of the program itself, keeps no results

Patients, pretrained model, and endpoints are those of `benchmarks/finetuning.py --realistic`, whose --folder has them.
The task is the time to the first record of a code after a random visit: training and test patients are followed for as
long as they are observed, and death competes. All models learn from the same training patients, are tuned on the same
validation patients, and are measured on the same test patients, which the pretraining never saw; of these at most
20,000, by a hash. The measure is Uno's concordance up to each horizon, of the risks by that horizon.

Cox's regression and boosted hazards learn from the bag of codes of the other baselines, and stand there twice, the
second time given the pretrained model's answer as a column. The same model without any label stands beside them, and
the risks that the outcomes were drawn with, among the test patients who do not have the condition yet.

Differences are means over the endpoints and the seeds. Their intervals resample patients, each with all their outcomes,
and seeds.

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
from two_level import FollowedDraws, differences

from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.labeled import TEST, Cohort
from exmed_bert.cohorts.tasks.base import TIME_TO_EVENT, GeneratedOutcome
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.evaluation import survival_baselines
from exmed_bert.evaluation.concordance import concordance
from exmed_bert.evaluation.features import features
from exmed_bert.evaluation.follow_up import OUTCOME, FollowUp
from exmed_bert.evaluation.metrics import sigmoid
from exmed_bert.finetuning.finetune import make_experiment
from exmed_bert.finetuning.hazards import TimeToEventObjective
from exmed_bert.finetuning.over_time import risks_of
from exmed_bert.finetuning.results import known_risks, unlabeled
from exmed_bert.finetuning.runs import Experiment, Run, train_one
from exmed_bert.models.folder import read_pretrained
from exmed_bert.settings import SURVIVAL_BASELINES, FinetuneSettings
from exmed_bert.staging import atomic_write
from exmed_bert.training.metrics_writer import MetricsWriter

HORIZONS = (365, 730)
PATIENTS, PRETRAINED, POPULATION_SEED, EPOCHS = 200_000, 20_000, 11, 30
RESAMPLES = 500
OURS, ZERO_SHOT, TRUE = "fine-tuned", "no labels", "true risks"
_PLAIN = ("days", "events", "keys", "at_risk", "true_risk")  # arrays of an endpoint


@dataclass(frozen=True)
class Case:
    """An endpoint with what is shared by its models."""

    name: str
    cohort: Cohort
    experiment: Experiment
    follow_up: FollowUp
    outcome: GeneratedOutcome | None

    @property
    def test(self) -> np.ndarray:
        """Rows of the test patients."""
        return self.experiment.patients.rows(TEST)

    @property
    def objective(self) -> TimeToEventObjective:
        """What is learned."""
        assert isinstance(self.experiment.objective, TimeToEventObjective), "the objective is that of the task"
        return self.experiment.objective


@dataclass(frozen=True)
class Found:
    """The results of an endpoint; all arrays are of its test patients.

    Attributes:
        name: of the endpoint.
        days, events: (n,) of their follow-up.
        keys: (n,) hashes of the patients' ids.
        at_risk: (n,) whether they do not have the condition yet; nobody where that is not known.
        true_risk: (n, H) by each horizon, of those at risk.
        risks: by model (S, n, H), one row per seed.
    """

    name: str
    days: np.ndarray
    events: np.ndarray
    keys: np.ndarray
    at_risk: np.ndarray
    true_risk: np.ndarray
    risks: dict[str, np.ndarray]

    def draws(self, place: int) -> FollowedDraws:
        """Return the test patients with every model's risks by a horizon."""
        of_models = {name: own[:, :, place] for name, own in self.risks.items()}
        return FollowedDraws(FollowUp(self.days, self.events), HORIZONS[place], self.keys, of_models)

    def draws_beside_truth(self, place: int) -> FollowedDraws:
        """Return the test patients at risk with the true risks by a horizon, ours, and those without labels."""
        own, seeds = self.at_risk, len(self.risks[OURS])
        of_models = {name: self.risks[name][:, own, place] for name in (OURS, ZERO_SHOT)}
        of_models[TRUE] = np.tile(self.true_risk[own, place], (seeds, 1))
        return FollowedDraws(FollowUp(self.days[own], self.events[own]), HORIZONS[place], self.keys[own], of_models)

    def events_by(self, horizon: int, rows: np.ndarray | None = None) -> int:
        """Return how many of the patients are seen to have the outcome by a horizon, or of some of them."""
        seen = (self.events == OUTCOME) & (self.days <= horizon)
        return int((seen if rows is None else seen & rows).sum())

    def save(self, path: Path) -> None:
        """Write it to a file."""
        with atomic_write(path) as part, open(part, "wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in _PLAIN}, **self.risks)

    @classmethod
    def load(cls, path: Path) -> "Found":
        """Read it again; the file is named after the endpoint."""
        with np.load(path) as content:
            plain = {name: content[name] for name in _PLAIN}
            return cls(path.stem, **plain, risks={name: content[name] for name in content if name not in _PLAIN})


def make_case(name: str, folder: Path, model_dir: Path) -> Case:
    """Build the cohort of an endpoint."""
    settings = FinetuneSettings(
        input=(patients_of(folder),),
        model_dir=model_dir,
        task=TIME_TO_EVENT,
        endpoint=name,
        horizons=",".join(map(str, HORIZONS)),
    )
    model, form = read_pretrained(model_dir)
    task = requested_task(settings)
    source = PatientInput(settings.input, settings, form.static_columns)
    cohort = build(source, task, form, settings.min_history, settings.seed)
    cohort = replace(cohort, patients=fewer(cohort.patients))
    experiment, _ = make_experiment(settings, cohort, task, form, model)
    patients = cohort.patients
    return Case(name, cohort, experiment, FollowUp.of(patients.timeline, patients.index_days), task.generated_outcome)


def without_labels(case: Case) -> np.ndarray:
    """Return the pretrained model's log odds of the outcome by each horizon, (N, H)."""
    columns = []
    for horizon in HORIZONS:
        prompt = replace(case.experiment.prompt, days=(0.0, float(horizon)))
        answer = unlabeled(replace(case.experiment, prompt=prompt))
        assert answer is not None, "the model forecasts every code that it knows"
        columns.append(answer[:, 0, 0])  # the first score: rates and slopes of the bins are not fitted yet
    return np.stack(columns, axis=1)


def risks_by_model(case: Case, runs: Path, seeds: Sequence[int], writer: MetricsWriter) -> dict[str, np.ndarray]:
    """Train everything; return each model's risks of the test patients, (S, n, H)."""
    found: dict[str, list[np.ndarray]] = {}
    objective, patients, test = case.objective, case.experiment.patients, case.test
    of_test, horizons = case.follow_up.take(test), [float(horizon) for horizon in HORIZONS]
    answers = without_labels(case)
    for seed in seeds:
        run, part = Run(OURS, None, seed), objective.draw(None, seed)
        done = train_one(run, case.experiment, runs / case.name / run.name, lambda: writer, f"{case.name}/{seed}/")
        found.setdefault(OURS, []).append(risks_of(done.logits, objective.bins, HORIZONS, 0))
        found.setdefault(ZERO_SHOT, []).append(sigmoid(answers[test]))
        table = features(patients, part.train)
        for answer, name in product((None, answers[:, -1]), SURVIVAL_BASELINES):
            fitted = survival_baselines.fit(
                name, patients, case.follow_up, horizons, part.train, part.validation, seed, answer, table
            )
            found.setdefault(fitted.name, []).append(fitted.risks[test])
        reached = {name: concordance(of_test, own[-1][:, -1], horizons[-1]) or 0.5 for name, own in found.items()}
        print(f"{case.name}, seed {seed}: {', '.join(f'{name} {c:.4f}' for name, c in reached.items())}", flush=True)
    return {name: np.stack(own) for name, own in found.items()}


def truth_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return which test patients are at risk, (n,), nobody where not known, and their risks by each horizon, (n, H)."""
    outcome, n = case.outcome, len(case.test)
    found, _ = known_risks(case.cohort, [replace(outcome, until=day) for day in HORIZONS] if outcome else [])
    if not found:
        return np.zeros(n, dtype=bool), np.zeros((n, len(HORIZONS)))
    return found[0].at_risk, np.stack([one.risk for one in found], axis=1)


def find(name: str, folder: Path, model_dir: Path, given: argparse.Namespace, deadline: float) -> Found | None:
    """Measure one endpoint, or read what was found of it before; None where events are few, or time is over."""
    kept, skipped = folder / "over_time" / f"{name}.npz", folder / "over_time" / f"{name}.skipped"
    if kept.exists():
        return Found.load(kept)
    if skipped.exists() or time.time() > deadline:
        return None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    case = make_case(name, folder, model_dir)
    kept.parent.mkdir(exist_ok=True)
    of_test = case.follow_up.take(case.test)
    events = int(((of_test.events == OUTCOME) & (of_test.days <= HORIZONS[0])).sum())
    if events < given.least_events:
        skipped.write_text(f"{events} test patients with the outcome\n", encoding="utf-8")
        return None
    with MetricsWriter(folder / "reports_over_time" / name, "finetuning", name, 0) as writer:
        risks = risks_by_model(case, folder / "runs_over_time", range(SEED, SEED + given.seeds), writer)
    at_risk, true_risk = truth_of(case)
    keys = case.experiment.patients.dataset.columns["patient_hashes"].numpy()[case.test]
    found = Found(name, of_test.days, of_test.events, keys, at_risk, true_risk, risks)
    found.save(kept)
    return found


def compared(what: str, tested: list[FollowedDraws], ours: str, resamples: int) -> list[Measurement]:
    """Return the mean concordance of each model, and the differences of one from each other one."""
    found = differences(tested, ours, resamples)
    names = list(tested[0].scores)
    figures = [Measurement(f"{what}: {name}, mean concordance", [found[name][0]], "") for name in names]
    for name in names:
        if name == ours:
            continue
        gain = found[name][1]
        low, high = gain.interval or (gain.value, gain.value)
        figures.append(Measurement(f"{what}: {ours} minus {name}", [low, gain.value, high], ""))
        if ours == OURS and name in SURVIVAL_BASELINES:
            figures.append(Measurement(f"{what}: {ours} minus {name}, lower end", [low], "", at_least=0.0))
    return figures


def figures_of(found: list[Found], resamples: int) -> list[Measurement]:
    """Return all figures."""
    figures = [Measurement("endpoints", [len(found)], "codes")]
    for of in found:
        figures.append(Measurement(f"{of.name}: test patients", [len(of.days)], "patients"))
        figures.append(Measurement(f"{of.name}: days of follow-up", [float(np.median(of.days))], "days"))
        for place, horizon in enumerate(HORIZONS):
            what = f"{of.name}, {horizon} days"
            figures.append(Measurement(f"{what}: with the outcome", [of.events_by(horizon)], "patients"))
            drawn = of.draws(place)
            once = np.ones((1, len(of.days)))
            for name, own in drawn.scores.items():
                reached = [float(drawn.measure(scores)(once)[0]) for scores in own]
                figures.append(Measurement(f"{what}: {name}", reached, "concordance"))
    for place, horizon in enumerate(HORIZONS):
        what = f"{horizon} days"
        figures += compared(what, [of.draws(place) for of in found], OURS, resamples)
        known = [of for of in found if of.events_by(horizon, of.at_risk)]
        if known:
            figures += compared(f"{what}, at risk", [of.draws_beside_truth(place) for of in known], TRUE, resamples)
    return figures


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS:,}]")
    parser.add_argument(
        "--pretrained", type=at_least_one, default=PRETRAINED, help=f"of them, for pretraining [{PRETRAINED:,}]"
    )
    parser.add_argument("--population-seed", type=int, default=POPULATION_SEED, help=f"[default: {POPULATION_SEED}]")
    parser.add_argument("--epochs", type=at_least_one, default=EPOCHS, help=f"of pretraining [default: {EPOCHS}]")
    parser.add_argument("--seeds", type=at_least_one, default=1, help="trainings per endpoint [default: 1]")
    parser.add_argument("--endpoints", type=at_least_one, help="most of them [default: all]")
    parser.add_argument(
        "--least-events", type=at_least_one, default=LEAST_EVENTS, help="of an endpoint's test patients"
    )
    parser.add_argument("--resamples", type=at_least_one, default=RESAMPLES, help=f"[default: {RESAMPLES}]")
    parser.add_argument("--jobs", type=int, default=1, help="endpoints at a time [default: 1]")
    parser.add_argument("--minutes", type=float, help="begin no further endpoint after so many")
    parser.add_argument("--folder", type=Path, help="where patients, model and runs are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick, jobs, minutes = given.folder, given.quick, given.jobs, given.minutes
    del given.folder, given.quick, given.jobs, given.minutes
    if quick:
        given.patients, given.pretrained, given.population_seed, given.epochs = 8000, 2500, 3, 1
        given.least_events, given.endpoints, given.resamples = 8, given.endpoints or 2, 50
    deadline = time.time() + 60 * minutes if minutes else float("inf")
    load = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        share = given.pretrained / given.patients
        model_dir = pretrain(folder, given.patients, given.epochs, share, given.population_seed, ["--realistic"])
        names = frequent(patients_of(folder), MOST_FREQUENT)
        measure = partial(find, folder=folder, model_dir=model_dir, given=given, deadline=deadline)
        found = first_found(measure, names, jobs, given.endpoints)
    figures = figures_of(found, given.resamples)
    if quick:
        print_figures(figures)
    else:
        own = {"endpoints": given.endpoints, "minutes": minutes, "seeds": given.seeds if given.seeds > 1 else None}
        own["resamples"] = given.resamples if given.resamples != RESAMPLES else None
        command = "python benchmarks/time_to_event.py" + "".join(f" --{name} {own[name]}" for name in own if own[name])
        print(f"{command}: {', '.join(of.name for of in found)}")
        report("time_to_event", given, load, figures, command)


if __name__ == "__main__":
    main()
