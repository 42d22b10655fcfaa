"""Risks without labels: are they calibrated, how far are they from the attainable, and what do forecasts cost?

    python benchmarks/zero_shot.py            # 60,000 realistic patients, 20,000 of them for pretraining; 20 minutes
    python benchmarks/zero_shot.py --quick    # a check of the program itself, keeps no results

Patients are generated with --realistic, converted and pretrained on by the project itself with its default share of
forecasts. The risks are those of `finetune --predict-only` with the pretrained model, at a random visit of each patient
with half a year, or a year, of observation after it, for every lasting condition and category of them with at least 100
events among the patients that the pretraining never saw. Nothing is fitted to outcomes.

The attainable AUROC is that of the hazards that the patients were drawn from, on the same patients and outcomes. It is
known of those who do not have the condition yet. Some have had it since before their record began, and it is only yet
to be coded: their first code is an event, too, in the figures of all patients, but the comparison leaves them out.

The cost: the same model with and without forecasts, the same steps, several seeds: masked-code accuracy on the same
patients and masks, and processor time of a step.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Measurement, at_least_one, generate, load_average, print_figures, report, run_quietly, script

from exmed_bert.data.patient_input import PatientInput
from exmed_bert.evaluation.metrics import measure, sigmoid
from exmed_bert.finetuning.zero_shot import known_outcome, predict_endpoint
from exmed_bert.models.folder import read_pretrained
from exmed_bert.reference.tables import load
from exmed_bert.settings import FinetuneSettings, PretrainSettings
from exmed_bert.synthetic.life import LASTING
from exmed_bert.synthetic.truth import truth

PATIENTS, TRAINED_ON = 60_000, 1 / 3
HORIZONS = (180, 365)
LEAST_EVENTS = 100
MOST_ENDPOINTS = 16
STEPS, STEPS_OF_COST = 7000, 2500
SEEDS = 3
MODEL = {"train-batch-size": 32, "hidden-size": 64, "num-hidden-layers": 3, "num-attention-heads": 4}
MAX_LENGTH = 80
FORECAST_PROB = PretrainSettings.model_fields["forecast_prob"].default


@dataclass(frozen=True)
class Found:
    """Figures of an endpoint at a horizon, among the patients that the pretraining never saw.

    Attributes:
        auroc, slope, ratio: of all of them; the last is the mean risk over the observed share.
        ours, attainable: AUROC of the model and of the truth among those without the condition.
    """

    events: int
    auroc: float
    slope: float
    ratio: float
    ours: float
    attainable: float


def pretrain(folder: Path, name: str, steps: int, forecast_prob: float, seed: int) -> Path:
    """Pretrain on the converted patients, unless it is done; return the folder of the model."""
    model = folder / name
    if not (model / "pretraining.json").is_file():
        flags: dict[str, Any] = MODEL | {
            "max-steps": steps,
            "eval-steps": steps,
            "save-steps": steps,
            "eval-max-patients": 2000,
        }
        flags |= {"training-data": folder / "data_train.pt", "validation-data": folder / "data_val.pt", "seed": seed}
        flags |= {"output-dir": model, "output-data-dir": folder / f"{name}_data", "forecast-prob": forecast_prob}
        flags |= {"learning-rate": 0.002}
        arguments = [part for key, value in flags.items() for part in (f"--{key}", value)]
        run_quietly(script("pretrain-exmed-bert-clinvec.py", *arguments))
    return model


def results_of(folder: Path, name: str) -> dict[str, float]:
    """Return the metrics of a pretraining."""
    lines = (folder / f"{name}_data" / "eval_results.txt").read_text(encoding="utf-8").splitlines()
    return {key: float(value) for key, _, value in (line.partition(" = ") for line in lines)}


def endpoints(people: Path, most: int) -> dict[str, list[str]]:
    """Return the most frequent lasting conditions, and their categories where these are several, with their codes."""
    import pyarrow.parquet

    diagnoses = load().diagnoses
    lasting = {code for code, kind in zip(diagnoses.codes, diagnoses.kinds, strict=True) if kind in LASTING}
    column = pyarrow.parquet.read_table(people, columns=["diagnoses"])["diagnoses"]
    counts: dict[str, int] = defaultdict(int)
    for codes in column.to_pylist():
        for code in set(codes) & lasting:
            counts[code] += 1
    frequent = sorted(counts, key=lambda code: -counts[code])[:most]
    categories: dict[str, list[str]] = defaultdict(list)
    for code in sorted(lasting):
        categories[code[:3]].append(code)
    found = {code: [code] for code in frequent}
    of_frequent = dict.fromkeys(code[:3] for code in frequent)
    return found | {f"{name}*": categories[name] for name in of_frequent if len(categories[name]) > 1}


def measured(
    folder: Path, people: Path, model_dir: Path, endpoint: str, codes: Sequence[str], horizon: int
) -> Found | None:
    """Predict an endpoint without labels; return its figures, None with too few events."""
    settings = FinetuneSettings(
        input=(people,), model_dir=model_dir, endpoint=f"ICD:{endpoint}", horizon_days=horizon, index_date="random"
    )
    model, form = read_pretrained(model_dir)
    found = predict_endpoint(settings, model, form, PatientInput(settings.input, settings, form.static_columns))
    patients = found.cohort.patients
    known = known_outcome(found.task, patients)
    if known is None or known[1].labels.sum() < LEAST_EVENTS:
        return None
    unseen, outcome = known
    risks, weights, labels = sigmoid(found.logits[unseen]), outcome.weights()[0], outcome.labels
    everyone = measure(labels, risks, weights)
    ids = np.array([int(patients.dataset.patient_id(int(row))) for row in unseen])
    meta = json.loads(people.with_suffix("").with_suffix(".meta.json").read_text(encoding="utf-8"))
    drawn = truth(meta, list(codes), ids, patients.index_days[unseen].astype(np.int64), horizon)
    free = drawn.at_risk & (weights > 0)
    ours, best = (measure(labels[free], scores[free], weights[free])["auroc"] for scores in (risks, drawn.risk))
    ratio = float(np.average(risks, weights=weights) / np.average(labels, weights=weights))
    return Found(int(labels.sum()), everyone["auroc"], everyone["calibration_slope"], ratio, ours, best)


def cost(folder: Path, steps: int, seeds: int) -> list[Measurement]:
    """Return how masked-code accuracy and the speed of training change with forecasts, at equal steps."""
    found: Mapping[float, list[dict[str, Any]]] = {0.0: [], FORECAST_PROB: []}
    for seed in range(1, seeds + 1):
        for share, of_share in found.items():
            name = f"cost_{share:g}_{seed}"
            pretrain(folder, name, steps, share, seed)
            of_share.append(results_of(folder, name))
    without, with_them = found.values()
    figures = []
    for share, of_share in found.items():
        accuracies = [of["eval_accuracy_top1"] for of in of_share]
        figures.append(Measurement(f"masked-code accuracy with {share:g} of forecasts", accuracies, ""))
    lost = [100 * (a["eval_accuracy_top1"] - b["eval_accuracy_top1"]) for a, b in zip(without, with_them, strict=True)]
    figures.append(Measurement("masked-code accuracy lost by forecasts", lost, "points", at_most=1.0))
    slower = [
        a["train_steps_per_second"] / b["train_steps_per_second"] for a, b in zip(without, with_them, strict=True)
    ]
    figures.append(Measurement("seconds of a step with forecasts, without: 1", slower, ""))
    return figures


def figures_of(found: Mapping[tuple[str, int], Found]) -> list[Measurement]:
    """Return the figures of each endpoint, and their means."""
    figures = []
    for (endpoint, horizon), of in found.items():
        name = f"{endpoint} within {horizon} days"
        figures.append(Measurement(f"{name}: events", [of.events], "patients"))
        figures.append(Measurement(f"{name}: AUROC", [of.auroc], "AUROC"))
        figures.append(Measurement(f"{name}: AUROC of those without it, attainable", [of.attainable], "AUROC"))
        figures.append(Measurement(f"{name}: AUROC of those without it, ours", [of.ours], "AUROC"))
        figures.append(Measurement(f"{name}: calibration slope", [of.slope], ""))
        figures.append(Measurement(f"{name}: mean risk over observed share", [of.ratio], ""))
    for horizon in HORIZONS:
        own = [of for (_, days), of in found.items() if days == horizon]
        if not own:
            continue
        slope, behind = (
            float(np.mean(values)) for values in ([of.slope for of in own], [of.attainable - of.ours for of in own])
        )
        what = f"{len(own)} endpoints within {horizon} days"
        figures.append(Measurement(f"{what}: mean calibration slope, lower bound", [slope], "", at_least=0.8))
        figures.append(Measurement(f"{what}: mean calibration slope, upper bound", [slope], "", at_most=1.2))
        ratio = float(np.mean([of.ratio for of in own]))
        figures.append(Measurement(f"{what}: mean of mean risk over observed share", [ratio], ""))
        figures.append(Measurement(f"{what}: mean AUROC", [float(np.mean([of.auroc for of in own]))], "AUROC"))
        figures.append(Measurement(f"{what}: attainable minus ours", [behind], "AUROC", at_most=0.02))
    return figures


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--steps", type=at_least_one, default=STEPS, help=f"of pretraining [default: {STEPS}]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"of the cost [default: {SEEDS}]")
    parser.add_argument("--population", type=at_least_one, default=11, help="seed of the patients [default: 11]")
    parser.add_argument("--folder", type=Path, help="where patients and models are kept and found again")
    parser.add_argument("--quick", action="store_true", help="small numbers; keeps no results")
    given = parser.parse_args()
    kept, quick, of_cost = given.folder, given.quick, STEPS_OF_COST
    del given.folder, given.quick
    if quick:
        given.patients, given.steps, given.seeds, of_cost = 6000, 100, 1, 50
    load_before = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        people = folder / "patients.parquet"
        if not people.is_file():
            generate(people, given.patients, given.population, ["--realistic"])
        if not (folder / "data_val.pt").is_file():
            conversion = ("--input", people, "--output", folder / "data.pt", "--max-length", MAX_LENGTH)
            run_quietly(script("convert_synthetic_to_dataset.py", *conversion, "--train-ratio", f"{TRAINED_ON:.4f}"))
        model = pretrain(folder, "model", given.steps, FORECAST_PROB or 0.3, 1)
        found = {}
        for endpoint, codes in endpoints(people, 2 if quick else MOST_ENDPOINTS).items():
            for horizon in HORIZONS:
                if (of := measured(folder, people, model, endpoint, codes, horizon)) is not None:
                    found[endpoint, horizon] = of
        figures = figures_of(found) + cost(folder, of_cost, given.seeds)
    if quick:
        print_figures(figures)
    else:
        report("zero_shot", given, load_before, figures)


if __name__ == "__main__":
    main()
