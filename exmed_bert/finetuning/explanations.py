"""Attributions: integrated gradients of the logits of some test patients, by code; of time to
event of the log hazard ratios.

Only the codes change on the way from the baseline to the patient; ages, static columns and visits stay. The baseline is
the embedding of MASK at each code, which the model has learned to read as an unknown code.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exmed_bert import console
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import TEST
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.randomness import mix
from exmed_bert.data.vocabulary import MASK
from exmed_bert.evaluation.explain import Attributions as TokenAttributions
from exmed_bert.evaluation.explain import by_code, integrated_gradients
from exmed_bert.evaluation.results import CodeAttribution
from exmed_bert.finetuning.runs import Experiment
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.staging import atomic_write
from exmed_bert.training.tracking import log

ATTRIBUTIONS = "attributions.parquet"

_AT_ONCE = 16  # patients


@dataclass(frozen=True)
class Attributions:
    """What codes add to the logits of some patients.

    Attributes:
        by_code: the sums.
        single: ``row`` of the patient, id of the ``code`` and ``value``, one of each per event.
    """

    by_code: list[CodeAttribution]
    single: dict[str, np.ndarray]


def explain(
    model: ExMedBertForSequenceClassification, experiment: Experiment, number: int, cells: MinCell
) -> Attributions:
    """Attribute the logits of some test patients, ``number`` of them, to their codes."""
    patients = experiment.patients
    test = patients.rows(TEST)
    keys = patients.dataset.columns["patient_hashes"].numpy()[test]
    chosen = test[np.sort(np.argsort(mix(experiment.settings.seed, keys), kind="stable")[:number])]
    rows = LabeledRows(patients, chosen)
    model.eval()
    found: dict[str, list[np.ndarray]] = {"row": [], "code": [], "value": []}
    complete = 0
    for start in console.progress(range(0, len(chosen), _AT_ONCE), label="Explaining", unit=" batches"):
        batch = experiment.collator(rows.batch(range(start, min(start + _AT_ONCE, len(chosen)))))
        batch = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
        codes = batch["input_ids"]
        attributions = of_batch(model, batch)
        real = batch["attention_mask"].bool()
        complete += int(attributions.complete.sum())
        shown = (real & (codes != MASK)).cpu().numpy()
        row, _ = np.nonzero(shown)
        found["row"].append(chosen[start + row])
        found["code"].append(codes.cpu().numpy()[shown])
        found["value"].append(attributions.tokens.cpu().numpy()[shown])
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    vocabulary = patients.dataset.info.vocabulary
    if complete < len(chosen):
        console.warn(f"the attributions of {len(chosen) - complete:,} patients miss their logit by more than 1 %")
    least = max(min(3, number), cells.limit)
    return Attributions(by_code(joined["code"], joined["value"], joined["row"], vocabulary, least=least), joined)


def of_batch(model: ExMedBertForSequenceClassification, batch: dict[str, Tensor]) -> TokenAttributions:
    """Attribute the logit of each patient of a batch to its tokens; the model is in evaluation mode."""
    codes = batch["input_ids"]
    with torch.no_grad():
        embedded = model.get_input_embeddings()(codes)
        baseline = model.get_input_embeddings()(torch.full_like(codes, MASK))

    def logit_of(embeds: Tensor, which: Tensor) -> Tensor:
        return model(**{name: tensor[which] for name, tensor in batch.items()}, inputs_embeds=embeds).scores[:, 0]

    return integrated_gradients(logit_of, embedded, baseline, batch["attention_mask"].bool())


def write_attributions(folder: Path, found: Attributions, dataset: PatientDataset, cells: MinCell) -> None:
    """Write the codes of single patients to attributions.parquet, but not where counts are hidden."""
    if cells.limit:
        log(f"{ATTRIBUTIONS}: not written, since it holds the codes of single patients; --min-cell 0 writes it")
        return
    import pyarrow
    import pyarrow.parquet

    content = {
        "patient_id": [str(dataset.patient_id(row)) for row in found.single["row"].tolist()],
        "code": [dataset.info.vocabulary.tokens[code] for code in found.single["code"].tolist()],
        "attribution": found.single["value"],
    }
    with atomic_write(folder / ATTRIBUTIONS) as part:
        pyarrow.parquet.write_table(pyarrow.table(content), part, write_page_checksum=True)
