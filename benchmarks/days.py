"""Measure what a model gains from seeing the days between visits, and what that costs.

    python benchmarks/days.py            # 14,000 realistic patients, three seeds of training; about ten minutes
    python benchmarks/days.py --quick    # a check of the program itself, keeps no results

Both models of a pair have the same patients in the same batches, with the same masks and forecasts; one sees the days
between visits (``--visit-days``), the other their order alone. On validation patients under the fixed masks

* masked codes: mean loss in nats, and accuracy;
* forecasts: the loss at a query after a history that is cut, of the time to the codes' first occurrences, as in
  training; and without any label the AUROC of a code's hazard within a year among patients who have not had it, a mean
  over the codes that begin in at least `LEAST_CASES` of them.

The cost is processor time: steps of the demonstration's and of the production model, in turn with and without days.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import Measurement, at_least_one, generate, load_average, print_figures, report
from runs import DEMO, PRODUCTION, Model
from sklearn.metrics import roc_auc_score

from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.hazards import BIN_ENDS
from exmed_bert.settings import ConvertSettings
from exmed_bert.training.forecast_start import start_forecasts
from exmed_bert.training.initial_model import align_head

PATIENTS, STEPS, SEEDS = 14_000, 800, 3
POPULATION_SEED = 3
MAX_LENGTH = 64
SMALL = Model(layers=2, hidden=64, heads=4, feed_forward=128, batch=32)
LEARNING_RATE = 3e-3
FORECASTS = 0.5  # share of the patients
LEAST_CASES = 20
YEAR = 365  # days
TIMED = {  # model, codes per patient, groups, pairs of steps in each
    "demonstration": (DEMO, 50, 15, 100),
    "production": (PRODUCTION, 512, 5, 1),
}
Batch = dict[str, torch.Tensor]


def new_model(of: Model, dataset: PatientDataset, sees_days: bool, seed: int, length: int) -> ExMedBertForMaskedLM:
    """Return an untrained model."""
    info = dataset.info
    config = ExMedBertConfig(
        code_vocab_size=len(info.vocabulary),
        number_of_codes=len(info.vocabulary.entity_names),
        age_vocab_size=info.age_vocabulary_size,
        max_position_embedding=length + 1,
        hidden_size=of.hidden,
        num_hidden_layers=of.layers,
        num_attention_heads=of.heads,
        intermediate_size=of.feed_forward,
        visit_distance_bias=True,
        visit_days=sees_days,
        predict_future_codes=True,
        hazard_bin_ends=BIN_ENDS,
    )
    torch.manual_seed(seed)
    model = ExMedBertForMaskedLM(config)
    align_head(model)
    start_forecasts(model, CodeGroups.of(info.vocabulary, ()), dataset)
    model.set_attn_implementation("eager")
    return model.train()


def training_batches(dataset: PatientDataset, seed: int) -> Iterator[Batch]:
    """Yield batches without end, the same for the same seed."""
    sampler = LengthGroupedBatchSampler(dataset.lengths, SMALL.batch, seed)
    collate = MaskedCodeCollator(dataset.info, plos=False, forecast_prob=FORECASTS, seed=seed)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        collate.set_epoch(epoch)
        yield from (collate(dataset.batch(rows)) for rows in sampler)
        epoch += 1


def optimizer_of(model: ExMedBertForMaskedLM) -> torch.optim.Optimizer:
    """Return AdamW with the project's settings."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def step(model: ExMedBertForMaskedLM, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Take one optimizer step."""
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train(model: ExMedBertForMaskedLM, dataset: PatientDataset, seed: int, steps: int) -> None:
    """Train with a warm-up of a tenth of the steps and a linear decay."""
    optimizer = optimizer_of(model)
    warm = steps / 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / warm, (steps - done) / (steps - warm), 1.0)
    )
    for batch, _ in zip(training_batches(dataset, seed), range(steps), strict=False):
        step(model, optimizer, batch)
        schedule.step()


@torch.no_grad()
def evaluate(model: ExMedBertForMaskedLM, dataset: PatientDataset) -> dict[str, float]:
    """Return the metrics on validation patients."""
    model.eval()
    losses, hits = [], []
    for batch in validation_batches(dataset, forecasts=0.0):
        labels = batch["code_labels"][batch["code_labels"] != IGNORED]
        logits = model(**batch).masked_logits
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
        hits.append((logits.argmax(dim=1) == labels).float())
    scores, comes, known, forecast_losses, events = [], [], [], [], 0
    size, rows = model.config.code_vocab_size, model.code_classifier.predictions.decoder.weight
    of_bins = model.forecast_head.bins.exposure(torch.tensor(float(YEAR))).log()  # (K,), of the days within a year
    for batch in validation_batches(dataset, forecasts=1.0):
        observed = batch["observed_days"] >= YEAR
        batch = {name: tensor[observed] for name, tensor in batch.items()}
        n, targets, days = len(batch["input_ids"]), batch["target_ids"], batch["target_days"]
        output = model(**batch)
        forecast_losses.append(float(output.forecast_loss) * int((days > 0).sum()))
        answers = ("code_labels", "query_positions", "observed_days", "target_ids", "target_days")
        inputs = {name: tensor for name, tensor in batch.items() if name not in answers}
        hidden = model.bert(**inputs).last_hidden_state[torch.arange(n), batch["query_positions"]]
        codes = torch.where(batch["code_labels"] == IGNORED, batch["input_ids"], batch["code_labels"])
        states = model.forecast_states(hidden, codes, batch["age_ids"])
        log_hazards = model.forecast_head.log_hazards(states, list(range(size)), rows)[:, :size]
        scores.append((log_hazards + of_bins).logsumexp(dim=2))
        for marks, where in ((known, days == 0), (comes, (days > 0) & (days <= YEAR))):
            of_codes = where & (targets >= 0) & (targets < size)
            marks.append(torch.zeros(n, size + 1).scatter_(1, targets.where(of_codes, size), 1.0)[:, :size])
        events += int((days > 0).sum())
    table, came, had = (torch.cat(parts).numpy() for parts in (scores, comes, known))
    candidates = [code for code in range(len(SPECIAL_TOKENS), table.shape[1]) if came[:, code].sum() >= LEAST_CASES]
    areas = [
        roc_auc_score(came[had[:, code] == 0, code].astype(int), table[had[:, code] == 0, code]) for code in candidates
    ]
    return {
        "masked codes: loss": float(torch.cat(losses).mean()),
        "masked codes: accuracy": float(torch.cat(hits).mean()),
        "forecasts: loss": sum(forecast_losses) / events,
        "forecasts: AUROC": float(np.mean(areas)),
        "codes": len(candidates),
    }


def validation_batches(dataset: PatientDataset, forecasts: float) -> Iterator[Batch]:
    """Yield validation patients under their fixed masks, or with forecasts."""
    collate = MaskedCodeCollator(dataset.info, plos=False, validation=True, forecast_prob=forecasts)
    order = np.argsort(dataset.lengths, kind="stable")
    for start in range(0, len(order), 128):
        yield collate(dataset.batch(order[start : start + 128]))


def gains(train_data: PatientDataset, val: PatientDataset, seeds: int, steps: int) -> list[Measurement]:
    """Train pairs of models and return their metrics, and what days add to each."""
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for seed in range(1, seeds + 1):
        for sees_days, results in found.items():
            model = new_model(SMALL, train_data, sees_days, seed, MAX_LENGTH)
            train(model, train_data, seed, steps)
            results.append(evaluate(model, val))
            named = ", ".join(f"{name} {value:.4f}" for name, value in results[-1].items())
            print(f"  seed {seed}, {'with' if sees_days else 'without'} days: {named}", flush=True)
    figures = [Measurement("codes of which the AUROC is a mean", [found[True][0].pop("codes")], "codes")]
    for name in found[True][0]:
        without, with_days = ([result[name] for result in found[sees]] for sees in (False, True))
        unit = "nats" if "loss" in name else "share"
        figures += [Measurement(f"{name}, without days", without, unit), Measurement(f"{name}, with", with_days, unit)]
        figures.append(Measurement(f"{name}, gained", np.subtract(with_days, without).tolist(), unit))
    return figures


def costs(dataset: PatientDataset, quick: bool) -> list[Measurement]:
    """Return how much longer steps take with days, as processor time, in pairs that follow each other."""
    figures = []
    collate = MaskedCodeCollator(dataset.info, plos=False)
    for name, (of, length, groups, steps) in TIMED.items():
        groups, length = (1, 50) if quick else (groups, length)
        batch = repeated(collate(dataset.batch(range(of.batch))), length)
        models = [new_model(of, dataset, sees_days, 0, length) for sees_days in (False, True)]
        optimizers = [optimizer_of(model) for model in models]
        shares = []
        for group in range(groups + 1):  # the first does not count
            seconds: tuple[list[float], list[float]] = ([], [])
            for _ in range(steps):  # in turn, so that whatever else the machine does concerns both
                for i in (0, 1) if group % 2 else (1, 0):
                    start = time.process_time()
                    step(models[i], optimizers[i], batch)
                    seconds[i].append(time.process_time() - start)
            shares.append(100 * (statistics.median(seconds[1]) / statistics.median(seconds[0]) - 1))
        figures.append(Measurement(f"{name}: a step takes longer with days by", shares[1:], "%", at_most=3.0))
        print(f"  {name}: {statistics.median(shares[1:]):.1f} %", flush=True)
    return figures


def repeated(batch: Batch, length: int) -> Batch:
    """Return a batch whose tokens are repeated to a length."""

    def to_length(tensor: torch.Tensor) -> torch.Tensor:
        times = -(-length // tensor.shape[1])
        return tensor.repeat(1, times)[:, :length]

    return {name: tensor if tensor.shape[1:] in ((), (1,)) else to_length(tensor) for name, tensor in batch.items()}


def main() -> None:
    """Measure, print, and keep the results unless it is a quick check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--population", type=int, default=POPULATION_SEED, help="seed of the patients [default: 3]")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"of training [default: {SEEDS}]")
    parser.add_argument("--steps", type=at_least_one, default=STEPS, help=f"of training [default: {STEPS}]")
    parser.add_argument("--quick", action="store_true", help="1,500 patients, one seed, 20 steps; keeps no results")
    given = parser.parse_args()
    quick = vars(given).pop("quick")
    if quick:
        given.patients, given.seeds, given.steps = 1_500, 1, 20
    load = load_average()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = generate(folder / "patients.jsonl", given.patients, given.population, ["--realistic"])
        made = convert(ConvertSettings(input=people, output=folder / "data.pt", max_length=MAX_LENGTH))
        train_data, val = (PatientDataset.load(made.paths[split]) for split in ("train", "val"))
        figures = gains(train_data, val, given.seeds, given.steps) + costs(train_data, quick)
    if quick:
        print_figures(figures)
    else:
        report("days", given, load, figures)


if __name__ == "__main__":
    main()
