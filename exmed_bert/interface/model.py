"""A model in Python: embeddings, risks, masked codes and near codes of patients as you have them."""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.index_dates import LAST_VISIT, IndexRule
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.console import InputError
from exmed_bert.data.patient import EPOCH, LISTED, Patient
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS
from exmed_bert.embedding.histories import HistoryBuilder
from exmed_bert.embedding.pooling import POOLINGS, Embedder, Pooling
from exmed_bert.finetuning.risk import risks
from exmed_bert.interface.given import GivenPatients, Patients, as_input
from exmed_bert.interface.tokenizer import PatientTokenizer
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.code_tree import with_sums
from exmed_bert.models.folder import FINETUNING, read_finetuned, read_pretrained
from exmed_bert.models.near_codes import near_codes
from exmed_bert.reference.names import name_of

if TYPE_CHECKING:
    import pandas

_BATCH = 256  # patients per pass through the network


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> "PatientModel":
    """Load a pretrained or a fine-tuned model.

    Args:
        folder: of the model, as pretraining or fine-tuning writes it.
        device: to compute on.

    Raises:
        InputError: a file is missing or damaged.
    """
    with _quiet():
        return PatientModel(Path(folder), device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what transformers says when it reads weights from the user."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


class PatientModel:
    """A model, for patients as you have them: records, a table of events, a dataset or a path (`given.as_input`).

    Attributes:
        folder: that it was loaded from.
        network: `ExMedBertForMaskedLM`, of a fine-tuned model `ExMedBertForSequenceClassification`; a torch module.
        tokenizer: turns patients into what the network takes.
        finetuning: the finetuning.json of a fine-tuned model; None for a pretrained one.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Read the folder; see `load_model`."""
        self.folder = folder
        self.network: ExMedBertForMaskedLM | ExMedBertForSequenceClassification
        self.finetuning: dict[str, Any] | None = None
        if (folder / FINETUNING).is_file():
            self.network, form, self.finetuning = read_finetuned(folder)
        else:
            self.network, form = read_pretrained(folder)
        self.tokenizer = PatientTokenizer(form)
        self.network.eval().to(torch.device(device))

    def __repr__(self) -> str:
        config, kind = self.network.config, "pretrained"
        if self.finetuning is not None:
            kind = f"fine-tuned: {self.finetuning['title']}"
        return (
            f"PatientModel({str(self.folder)!r}, {kind}; {config.num_hidden_layers} layers, hidden size "
            f"{config.hidden_size}, {len(self.tokenizer):,} codes)"
        )

    @property
    def form(self) -> ModelInput:
        """The form in which the network takes histories."""
        return self.tokenizer.form

    @property
    def embeddings(self) -> np.ndarray:
        """The vectors of the codes, (V, hidden) float32, in the order of the vocabulary."""
        return self.network.get_input_embeddings().weight.detach().float().cpu().numpy()

    def embed(
        self, patients: Patients, pooling: Pooling | None = None, at: date | str | None = None, progress: bool = False
    ) -> "pandas.DataFrame":
        """Return a vector for each patient, a row by ``patient_id``, in the order given.

        Who has no event up to the time has missing values, NaN. A code that the model does not know is the
        sum of its ancestors, or UNK.

        Args:
            patients: as `given.as_input` takes them.
            pooling: ``query``: what the model expects next, the state that its forecasts are computed from, or of a
                model without forecasts that at a MASK after the history; ``mean`` over the codes of the history;
                ``last-visit`` over those of its last visit. None: ``query`` of a model that makes forecasts, ``mean``
                of others.
            at: the day up to which the history is read, for all; None: to each patient's last visit.
            progress: whether to show a bar.

        Raises:
            InputError: the patients cannot be read.
            ValueError: another pooling, or no day.
        """
        import pandas

        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"pooling: {pooling!r}, expected one of {', '.join(POOLINGS)}")
        rule = LAST_VISIT if at is None else IndexRule("fixed", day=(date.fromisoformat(str(at)[:10]) - EPOCH).days)
        rows = self.network.tree_rows
        builder = HistoryBuilder(self.form, OwnLabels(None, rule), rows=rows)
        embedder = Embedder(self.network, self.form, pooling, _BATCH, rows)
        ids, vectors = [], []
        source = as_input(patients, self.form.static_columns)
        bar = console.progress(label="Embedding", unit=" patients") if progress else None
        for chunk in source.quiet_chunks(CHUNK):
            histories, which = builder.build(chunk)
            found = np.full((len(chunk), self.network.config.hidden_size), np.nan, dtype=np.float32)
            found[which] = embedder.embed(histories)
            ids += chunk.patient_ids
            vectors.append(found)
            if bar is not None:
                bar.update(len(chunk))
        if bar is not None:
            bar.close()
        table = np.concatenate(vectors) if vectors else np.empty((0, self.network.config.hidden_size), np.float32)
        frame = pandas.DataFrame(table, index=pandas.Index(ids, name="patient_id"))
        return frame if (given := _given_ids(source)) is None else frame.reindex(given)

    def risk(self, patients: Patients, endpoint: str | None = None, horizon_days: int | None = None) -> "pandas.Series":
        """Return the probability of an outcome for each patient, by ``patient_id``, in the order given.

        It is predicted at the last visit, as ``--predict-only`` does. Who cannot be predicted for has a missing value,
        NaN: who has had the endpoint, or too few codes.

        Args:
            patients: as `given.as_input` takes them.
            endpoint: as ``--endpoint`` takes it; None: the fine-tuned model's own. A pretrained model that makes
                forecasts takes any.
            horizon_days: within which it counts; None: the fine-tuned model's own. A model of time to event has a risk
                at any horizon, and its own is the longest that it was measured at.

        Raises:
            InputError: the patients cannot be read, the model predicts something else, or none of them can be
                predicted for.
        """
        import pandas

        source = as_input(patients, self.form.static_columns)
        with _quiet():
            predicted = risks(self.folder, source, endpoint, horizon_days, _BATCH)
        patients_of = map(predicted.patients.dataset.patient_id, range(len(predicted.patients)))
        found = dict(zip(patients_of, predicted.probabilities.tolist(), strict=True))
        as_text = {str(patient): value for patient, value in found.items()}  # ids of a dataset are of one kind
        index = _given_ids(source)
        if index is None:
            ids = [i for chunk in source.quiet_chunks(CHUNK) for i in chunk.patient_ids]
            index = pandas.Index(ids, name="patient_id")
        return pandas.Series([as_text.get(str(i), np.nan) for i in index], index=index, name="risk", dtype="float64")

    def fill_masked(self, patient: Patients, top: int = 5) -> "pandas.DataFrame":
        """Return what the model expects in the place of each code ``MASK`` of a patient.

        Of the others, a code that the model does not know is the sum of its ancestors, or UNK.

        Args:
            patient: as `given.as_input` takes it; an event whose code is ``MASK`` has the date and the code system
                that it would have.
            top: how many codes for each.

        Returns:
            A row for each guess: ``date``, ``system``, ``rank``, ``code``, ``name`` and ``probability``, among all
            codes of the vocabulary.

        Raises:
            InputError: the patient cannot be read, no code is MASK, or the model was fine-tuned and predicts no codes.
        """
        import pandas

        network = self.network
        if not isinstance(network, ExMedBertForMaskedLM):
            raise InputError(f"{self.folder}: is fine-tuned and predicts no codes, expected a pretrained model")
        histories = self.tokenizer.histories(_numbered_masks(patient), network.tree_rows)
        if len(histories) != 1:
            raise InputError(f"patient: got {len(histories)}, expected one")
        batch = self._batch(histories)
        places = (batch["input_ids"][0] == MASK).nonzero()[:, 0]
        if not len(places):
            raise InputError(f"patient: none of the codes is {SPECIAL_TOKENS[MASK]}, expected one to fill in")
        with torch.inference_mode():
            if network.tree_rows is not None and len(histories.dataset.info.vocabulary) > len(self.tokenizer):
                table = network.get_input_embeddings().weight
                table = with_sums(table, network.tree_rows, histories.dataset.info.vocabulary.keys)
                batch["inputs_embeds"] = F.embedding(batch["input_ids"], table)
            hidden = network.bert(**batch).last_hidden_state
            logits = network.code_classifier(hidden[0, places]).float()[:, len(SPECIAL_TOKENS) :]
        found = logits.softmax(dim=1).topk(min(top, logits.shape[1]))
        days = histories.dataset.arrays["visit_days"]
        systems = self.form.vocabulary.entity_systems
        rows = []
        for place, values, ids in zip(places.tolist(), found.values.tolist(), found.indices.tolist(), strict=True):
            day = EPOCH + timedelta(days=int(days[int(batch["visit_ids"][0, place]) - 1]))
            system = systems[int(batch["entity_ids"][0, place])]
            for rank, (value, token) in enumerate(zip(values, ids, strict=True), start=1):
                rows.append(
                    (day, system.name if system else "", rank, *self._named(token + len(SPECIAL_TOKENS))[1:], value)
                )
        return pandas.DataFrame(rows, columns=["date", "system", "rank", "code", "name", "probability"])

    def nearest_codes(self, code: str, top: int = 10) -> "pandas.DataFrame":
        """Return the codes whose vectors point most nearly in the direction of a code's.

        Args:
            code: ``E11.9``, or ``icd10cm:E11.9`` where several systems have such a code.
            top: how many.

        Returns:
            A row for each: ``system``, ``code``, ``name`` and ``similarity``, the cosine.

        Raises:
            InputError: the model knows no such code, or several.
        """
        import pandas

        token = self.token_of(code)
        rows = [(*self._named(i), cosine) for i, cosine in near_codes(self.embeddings, token, top)]
        return pandas.DataFrame(rows, columns=["system", "code", "name", "similarity"])

    def token_of(self, code: str) -> int:
        """Return the id of a code; see `nearest_codes`."""
        vocabulary, text = self.form.vocabulary, code.strip()
        found = [i for i, key in enumerate(vocabulary.keys) if key is not None and key[1] == text]
        if not found:
            places = {key: i for i, key in enumerate(vocabulary.keys) if key is not None}
            systems = [system for system in vocabulary.entity_systems if system is not None]
            spelled = ((system.name, system.normalize(text)) for system in systems)
            found = [places[name, known] for name, known in spelled if known and (name, known) in places]
        if len(found) == 1:
            return found[0]
        if found:
            named = ", ".join(":".join(self._named(i)[:2]) for i in found)
            raise InputError(f"code {code!r}: is of several systems, expected one of {named}")
        close = difflib.get_close_matches(text.upper(), vocabulary.tokens[len(SPECIAL_TOKENS) :], n=3)
        raise InputError(
            f"code {code!r}: the model does not know it" + (f"; it knows {', '.join(close)}" * bool(close))
        )

    def _named(self, token: int) -> tuple[str, str, str]:
        """Return the system, the code and the name of an id; without an official name that of the nearest ancestor."""
        key = self.form.vocabulary.keys[token]
        return ("", self.form.vocabulary.tokens[token], "") if key is None else (*key, name_of(*key))

    def _batch(self, histories: LabeledPatients) -> dict[str, torch.Tensor]:
        """Return what the network takes of histories, on its device."""
        collate = PromptCollator([], self.network.config.max_position_embedding - 1)
        batch = collate(LabeledRows(histories, np.arange(len(histories))).batch(range(len(histories))))
        return {name: tensor.to(self.network.device) for name, tensor in batch.items() if name != "labels"}


def _given_ids(source: PatientInput) -> "pandas.Index | None":
    """Return the ids of all patients that were given, where these are known; warn of those that were left out."""
    import pandas

    for reason, count in source.summary.excluded.items():
        console.warn(f"{source}: {count:,} left out: {reason}")
    ids = source.ids if isinstance(source, GivenPatients) else None
    return None if ids is None else pandas.Index(ids, name="patient_id")


def _numbered_masks(patient: Patients) -> Patients:
    """Return a patient whose codes MASK differ from each other, or those of a visit would be one."""
    mask, numbers = SPECIAL_TOKENS[MASK], itertools.count(1)

    def numbered(codes: Sequence[Any]) -> list[Any]:
        return [f"{mask} {next(numbers)}" if code == mask else code for code in codes]

    if isinstance(patient, Patient):
        patient = patient.to_record()
    if isinstance(patient, Mapping):
        lists = {codes: numbered(patient[codes]) for codes, _ in LISTED.values() if codes in patient}
        others = patient.get("events") or []
        codes = numbered([event["code"] for event in others])
        events = [{**event, "code": code} for event, code in zip(others, codes, strict=True)]
        return {**patient, **lists, **({"events": events} if events else {})}
    if hasattr(patient, "assign") and "code" in getattr(patient, "columns", ()):
        frame: Any = patient
        return frame.assign(code=numbered(frame["code"].tolist()))
    if isinstance(patient, list | tuple):
        return [_numbered_masks(one) for one in patient]
    return patient
