"""The end of fine-tuning to time to event: measures all models on the test patients."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from exmed_bert.cohorts.cohort import subset
from exmed_bert.cohorts.labeled import TEST, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.time_to_event import TimeToEvent
from exmed_bert.evaluation import survival_baselines
from exmed_bert.evaluation.concordance import concordance
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.groups import strata
from exmed_bert.evaluation.metrics import logit
from exmed_bert.evaluation.over_time_assemble import RiskScores, assemble_over_time, followed_horizons
from exmed_bert.evaluation.over_time_results import ConcordancePoint
from exmed_bert.finetuning import facts
from exmed_bert.finetuning.explanations import explain
from exmed_bert.finetuning.hazards import TimeToEventObjective
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.finetuning.predictions import columns_over_time
from exmed_bert.finetuning.results import Evaluated, known_risks
from exmed_bert.finetuning.runs import Experiment, Finished, Run, load_best
from exmed_bert.models.hazards import HazardBins, cumulative_incidence
from exmed_bert.settings import SURVIVAL_BASELINES


def risks_of(logits: np.ndarray, bins: HazardBins, horizons: Sequence[int], gap: int) -> np.ndarray:
    """Return the risk of the outcome by each horizon, (n, H), from a model's log hazards, (n, causes, bins)."""
    days = torch.tensor([float(horizon - gap) for horizon in horizons], dtype=torch.float64)
    return cumulative_incidence(torch.from_numpy(logits), bins, days)[:, 0].numpy()


def evaluate_over_time(
    experiment: Experiment,
    cohort: Cohort,
    form: ModelInput,
    task: TimeToEvent,
    runs: Mapping[Run, Finished],
    compared: Sequence[str],
    strata_of: Sequence[str] = (),
) -> Evaluated:
    """Fit the baselines, and measure everything on the test patients; nothing is written.

    Args:
        experiment: what all runs share.
        cohort, form, task: as the runs had them.
        runs: in order; the model of the first is kept.
        compared: names of the baselines, and ``scratch``.
        strata_of: what the probability of being observed depends on, as `groups.strata` has it.

    Raises:
        InputError: nobody is followed to a horizon, or a baseline has nothing to learn from.
    """
    settings, patients, objective = experiment.settings, cohort.patients, experiment.objective
    assert isinstance(objective, TimeToEventObjective), "the objective is that of the task"
    follow_up = FollowUp.of(patients.timeline, patients.index_days)
    horizons = followed_horizons(patients, follow_up, task.horizons)
    main = next(iter(runs))
    part, test = objective.draw(main.size, main.seed), patients.rows(TEST)
    model = load_best(runs[main], experiment)

    def risks(run: Run) -> np.ndarray:
        everyone = experiment.rows(np.arange(len(patients)))
        network = model if run == main else load_best(runs[run], experiment)
        found = predict(network, everyone, experiment.collator, settings.eval_batch_size)
        return risks_of(found, objective.bins, horizons, task.gap)

    fitted: dict[Run, survival_baselines.SurvivalBaseline] = {}
    days = [float(horizon) for horizon in horizons]
    for one, baseline in {replace(run, kind=name): name for run in runs for name in compared}.items():
        if baseline in SURVIVAL_BASELINES:
            own = objective.draw(one.size, one.seed)
            fitted[one] = survival_baselines.fit(
                baseline, patients, follow_up, days, own.train, own.validation, one.seed
            )

    used = np.sort(np.concatenate((part.train, part.validation, test)))
    own_risks = risks(main)
    models = [RiskScores(main.kind, facts.LABELS[main.kind], own_risks[used], runs[main].budget)]
    for name in compared:
        twin = replace(main, kind=name)
        if twin in fitted:
            scores = RiskScores.of_baseline(fitted[twin])
            models.append(replace(scores, risks=scores.risks[used]))
        elif twin in runs and twin != main:
            models.append(RiskScores(name, facts.LABELS[name], risks(twin)[used], runs[twin].budget))
    attributions = explain(model, experiment, settings.explain, cohort.cells) if settings.explain else None
    outcome = task.generated_outcome
    truth, unknown = known_risks(cohort, [replace(outcome, until=day) for day in horizons] if outcome else [])
    left_out = [horizon for horizon in task.horizons if horizon not in horizons]
    evaluation = assemble_over_time(
        subset(patients, used),
        follow_up.take(used),
        horizons,
        models,
        title=task.title,
        facts=facts.facts(settings, task, cohort, main),
        attrition=cohort.attrition,
        notes=[*facts.notes(task, form, part), *([_too_long(left_out)] if left_out else []), *unknown],
        study=facts.study(settings, task, cohort, form),
        label_efficiency=_curve(experiment, follow_up, horizons, task.gap, runs, fitted),
        attributions=attributions.by_code if attributions else (),
        truth=np.stack([one.risk for one in truth], axis=1) if truth else None,
        at_risk=truth[0].at_risk if truth else None,
        strata=strata(patients, strata_of)[0][used] if strata_of else None,
        seed=settings.seed,
        cells=cohort.cells,
    )
    calibration = evaluation.results.models[0].calibration
    predictions = columns_over_time(horizons, calibration.probabilities(logit(own_risks)), follow_up)
    return Evaluated(model, predictions, calibration, evaluation.results, attributions)


def _too_long(horizons: Sequence[int]) -> str:
    days = ", ".join(map(str, horizons))
    return f"Too few validation or test patients are followed for {days} days, so nothing is told of that horizon."


def _curve(
    experiment: Experiment,
    follow_up: FollowUp,
    horizons: Sequence[int],
    gap: int,
    runs: Mapping[Run, Finished],
    fitted: Mapping[Run, survival_baselines.SurvivalBaseline],
) -> list[ConcordancePoint]:
    """Return the test concordance of every run, where there is more than one number of labels or one seed."""
    if len({(run.size, run.seed) for run in runs}) == 1:
        return []
    objective, test = experiment.objective, experiment.patients.rows(TEST)
    assert isinstance(objective, TimeToEventObjective), "the objective is that of the task"
    of_test = follow_up.take(test)
    risks = {run: risks_of(finished.logits, objective.bins, horizons, gap) for run, finished in runs.items()}
    risks |= {run: fit.risks[test] for run, fit in fitted.items()}
    points = []
    for run, own in risks.items():
        reached = concordance(of_test, own[:, -1], horizons[-1])
        if reached is not None:
            count = objective.draw(run.size, run.seed).labels
            points.append(ConcordancePoint(run.kind, count, run.seed, reached))
    return points
