"""The end of fine-tuning: measures all models on the test patients and writes model, predictions and report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.cohorts.cohort import subset
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import SPLITS, TEST, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import GeneratedOutcome, Task
from exmed_bert.console import InputError
from exmed_bert.evaluation import baselines
from exmed_bert.evaluation.assemble import ModelScores, assemble
from exmed_bert.evaluation.attainable import TrueRisks, true_risks
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.features import Features, features
from exmed_bert.evaluation.over_time_results import OverTimeResults
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.results_page import write_report
from exmed_bert.finetuning import facts
from exmed_bert.finetuning.explanations import ATTRIBUTIONS, Attributions, explain, write_attributions
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.finetuning.predictions import columns_of, write_predictions
from exmed_bert.finetuning.runs import Experiment, Finished, Run, load_best
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.models.card import Metric, ModelCard, write_card
from exmed_bert.models.folder import write_finetuned
from exmed_bert.settings import WITH_ANSWER, is_baseline, without_answer

OBSOLETE = (ATTRIBUTIONS,)  # what an earlier run may have left besides, and this one may not write


@dataclass(frozen=True)
class Evaluated:
    """What fine-tuning ends in.

    Attributes:
        model: that is kept.
        predictions: of all patients, columns of predictions.parquet by name.
        calibration: that makes probabilities of logits.
        results: of all models on the test patients.
        attributions: of some test patients; None where they were not asked for.
    """

    model: ExMedBertForSequenceClassification
    predictions: Mapping[str, Any]
    calibration: Calibration
    results: Results | OverTimeResults
    attributions: Attributions | None


def evaluate(
    experiment: Experiment,
    cohort: Cohort,
    form: ModelInput,
    task: Task,
    runs: Mapping[Run, Finished],
    compared: Sequence[str],
    outcome: HorizonOutcome | None = None,
) -> Evaluated:
    """Fit the baselines, and measure everything on the test patients; nothing is written.

    Args:
        experiment: what all runs share.
        cohort, form, task: as the runs had them.
        runs: in order; the model of the first is kept.
        compared: names of the baselines, and ``scratch``.
        outcome: of all patients, where some are censored.
    """
    settings, patients = experiment.settings, cohort.patients
    main = next(iter(runs))
    part = draw_subset(patients, main.size, main.seed)
    model = load_best(runs[main], experiment)
    everyone = np.arange(len(patients))
    logits = predict(model, LabeledRows(patients, everyone), experiment.collator, settings.eval_batch_size)

    fitted: dict[Run, baselines.BaselineResult] = {}
    wanted = {replace(run, kind=name): without_answer(name) for run in runs for name in compared}
    answer = unlabeled(experiment) if any(name.endswith(WITH_ANSWER) for name in compared) else None
    tables: dict[Run, Features] = {}  # of each draw one
    for one, baseline in wanted.items():
        given = answer if one.kind.endswith(WITH_ANSWER) else None
        if is_baseline(baseline) and (given is not None or one.kind == baseline):
            own, draw = draw_subset(patients, one.size, one.seed), replace(one, kind="")
            if draw not in tables:
                tables = {draw: features(patients, own.train)}
            fitted[one] = baselines.fit(baseline, patients, own.train, own.validation, one.seed, given, tables[draw])

    used = np.sort(np.concatenate((part.train, part.validation, patients.rows(TEST))))
    models = [ModelScores(main.kind, facts.LABELS[main.kind], logits[used], runs[main].budget)]
    if runs[main].calibrated:  # to all labels, so it is the sampling of all that is to be undone
        models[0] = replace(models[0], calibration=Calibration(bias=part.log_odds_offset - part.pooled_offset))
    for name in compared:
        twin = replace(main, kind=name)
        if twin in fitted:
            scores = ModelScores.of_baseline(fitted[twin])
            models.append(replace(scores, logits=scores.logits[used]))
        elif twin in runs and twin != main:
            of_twin = predict(
                load_best(runs[twin], experiment),
                LabeledRows(patients, used),
                experiment.collator,
                settings.eval_batch_size,
            )
            models.append(ModelScores(name, facts.LABELS[name], of_twin, runs[twin].budget))
    attributions = explain(model, experiment, settings.explain, cohort.cells) if settings.explain else None
    outcomes = [] if task.generated_outcome is None else [task.generated_outcome]
    truth, unknown = known_risks(cohort, outcomes)
    evaluation = assemble(
        subset(patients, used),
        models,
        title=task.title,
        facts=facts.facts(settings, task, cohort, main),
        attrition=cohort.attrition,
        notes=[*facts.notes(task, form, part), *unknown],
        study=facts.study(settings, task, cohort, form),
        label_efficiency=facts.curve(patients, runs, fitted),
        attributions=attributions.by_code if attributions else (),
        outcome=None if outcome is None else outcome.take(used),
        truth=truth[0] if truth else None,
        log_odds_offset=part.log_odds_offset,
        seed=settings.seed,
        cells=cohort.cells,
    )
    calibration = evaluation.results.models[0].calibration
    predictions = columns_of(calibration.probabilities(logits), patients.labels)
    return Evaluated(model, predictions, calibration, evaluation.results, attributions)


def unlabeled(experiment: Experiment) -> np.ndarray | None:
    """Return the pretrained model's answer to the prompt, log odds (N,) of all patients; None without a prompt."""
    if not experiment.prompt.targets:
        return None
    rows = LabeledRows(experiment.patients, np.arange(len(experiment.patients)))
    model = experiment.new_model(from_scratch=False, seed=0)
    return predict(model, rows, experiment.collator, experiment.settings.eval_batch_size)


def write(folder: Path, evaluated: Evaluated, experiment: Experiment, cohort: Cohort, task: Task) -> None:
    """Write model, predictions, attributions and report into a folder that is put in place later."""
    patients = cohort.patients
    info = patients.dataset.info
    write_finetuned(
        folder,
        evaluated.model,
        experiment.pretrained.vocabulary,
        {
            "title": task.title,
            "task": task.to_dict(),
            "min_history": experiment.settings.min_history,
            "same_day": experiment.settings.same_day,
            "max_length": info.max_length,
            "age_unit": info.age_unit,
            "temperature": evaluated.calibration.temperature,
            "bias": evaluated.calibration.bias,
        },
    )
    write_card(folder, _card(evaluated.results, experiment, cohort), experiment.settings.output_dir)
    splits = [SPLITS[split] for split in patients.splits]
    write_predictions(folder, patients, evaluated.predictions, splits)
    if evaluated.attributions:
        write_attributions(folder, evaluated.attributions, patients.dataset, cohort.cells)
    write_report(folder, evaluated.results)


def known_risks(cohort: Cohort, outcomes: Sequence[GeneratedOutcome]) -> tuple[list[TrueRisks], list[str]]:
    """Return what outcomes of the test patients were drawn from, or why that is not known of generated patients."""
    if not cohort.meta:
        return [], []
    novel = cohort.meta.get("novel_codes", {})
    test = subset(cohort.patients, cohort.patients.rows(TEST))
    found = []
    for outcome in outcomes:
        codes = None if outcome.codes is None else tuple(code for code in outcome.codes if code not in novel)
        try:
            found.append(true_risks(cohort.meta, replace(outcome, codes=codes), test))
        except InputError as error:
            return [], [f"The attainable performance is not known: {error}."]
    return found, []


def _card(results: Results | OverTimeResults, experiment: Experiment, cohort: Cohort) -> ModelCard:
    """Return the model card of what was fine-tuned."""
    info, test = cohort.patients.dataset.info, results.splits[TEST]
    metrics = [
        Metric(name, key, found.value, f"{found.low:.3f} to {found.high:.3f}" if found.interval else "")
        for key, (name, found) in results.models[0].by_key.items()
    ]
    by = ""
    if isinstance(results, OverTimeResults):
        by = f" by {', '.join(f'{one.horizon:g}' for one in results.horizons)} days"
    return ModelCard(
        title=f"ExMed-BERT, fine-tuned: {results.title}",
        task="text-classification",
        about=[f"It gives the probability of the outcome{by} from a patient's coded history."],
        data=[
            (f"{split.split} patients, with the outcome", f"{split.patients:,}, {split.events:,}")
            for split in results.splits
        ],
        vocabulary=experiment.pretrained.vocabulary,
        measured_on=f"Of {test.patients:,} test patients, who took no part in this training nor, as far as is known, "
        f"in its pretraining. {results.recalibration}",
        metrics=metrics,
        limits=[
            f"It is for patients as this cohort selects them, with {experiment.settings.min_history} codes or more; "
            f"histories are cut to the latest {info.max_length} codes.",
            *results.notes,
        ],
        generated=cohort.generated,
        example=['model.risk("patients.json")  # a probability for each patient, at the last visit'],
    )
