"""From histories to vectors: the hidden states of a model's last layer, pooled, or what it expects to come next."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.data.batches import QUERY_ENTITY
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.code_tree import TreeRows, with_sums
from exmed_bert.models.heads import mean_of_real

Network = ExMedBertForMaskedLM | ExMedBertForSequenceClassification
Pooling = Literal["mean", "last-visit", "query"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def makes_forecasts(network: Network) -> bool:
    """Tell whether a model has what forecasts are computed with; a model that was fine-tuned without a prompt has not.

    Those that make forecasts rank outcomes best by the state that these are computed from: `benchmarks/embeddings.py`.
    """
    return hasattr(network, "forecast_head")


class Embedder:
    """Embeds histories with a model.

    Attributes:
        pooling: what is pooled.
        size: of an embedding.
    """

    def __init__(
        self,
        network: Network,
        form: ModelInput,
        pooling: Pooling | None = None,
        batch_size: int = 256,
        rows: TreeRows | None = None,
    ) -> None:
        """Set how.

        Args:
            network: a pretrained or a fine-tuned model; on its device everything is computed.
            form: in which the model takes histories.
            pooling: ``mean`` over the codes of the history, ``last-visit`` over those of its last visit, or ``query``:
                at a MASK after the history, of a model that makes forecasts the state that these are computed from, of
                others the mean over one MASK for each kind of code; None: ``query`` of a model that makes forecasts,
                ``mean`` of others.
            batch_size: histories per pass.
            rows: what the model's codes are sums of, for histories with further codes.
        """
        self.pooling: Pooling = pooling or ("query" if makes_forecasts(network) else "mean")
        self.size: int = network.config.hidden_size
        self._network = network.eval()
        self._batch_size = batch_size
        queries: list[int] = []
        if self.pooling == "query":
            used = form.vocabulary.entities
            forecasts = makes_forecasts(network) and network.config.forecasts_hazards
            queries = [QUERY_ENTITY] if forecasts else np.unique(used[used > 0]).tolist()
        self._rows = rows
        self._table = network.get_input_embeddings().weight
        self._collate = PromptCollator(queries, network.config.max_position_embedding - 1)

    @torch.inference_mode()
    def embed(self, histories: LabeledPatients, bf16: bool = False) -> np.ndarray:
        """Return the embedding of each history, (N, hidden) float32.

        Args:
            histories: N of them.
            bf16: whether matrix products are computed in bfloat16.
        """
        rows = LabeledRows(histories, np.arange(len(histories)))
        order = np.argsort(rows.lengths, kind="stable")  # of like length together, so that there is little padding
        encoder = self._network.bert
        device = encoder.device
        vocabulary = histories.dataset.info.vocabulary
        if self._rows is not None and len(vocabulary) > len(self._table):
            self._table = with_sums(self._table, self._rows, vocabulary.keys)
        pooled = []
        for first in range(0, len(order), self._batch_size):
            batch = self._collate(rows.batch(order[first : first + self._batch_size]))
            del batch["labels"]
            inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            inputs["inputs_embeds"] = F.embedding(inputs["input_ids"], self._table)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                hidden = encoder(**inputs).last_hidden_state
            pooled.append(self._pool(hidden.float(), inputs))
        found = np.empty((len(order), self.size), dtype=np.float32)
        if pooled:
            found[order] = torch.cat(pooled).cpu().numpy()
        return found

    def _pool(self, hidden: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """(B, L, hidden) -> (B, hidden)."""
        mask, visits = inputs["attention_mask"], inputs["visit_ids"]
        if self.pooling == "query":
            queries = len(self._collate.entities)
            place = mask.sum(dim=1, keepdim=True) - 1 - torch.arange(queries, device=hidden.device)
            states = hidden.gather(1, place[:, :, None].expand(-1, -1, hidden.shape[2]))
            if makes_forecasts(network := self._network):
                bag = network.bag_of_codes(inputs["input_ids"], inputs["inputs_embeds"], inputs["age_ids"])
                states = network.code_classifier.predictions.states(states, network.forecast_head(bag)[:, None])
            return states.mean(dim=1)
        if self.pooling == "last-visit":
            mask = mask * (visits == visits.amax(dim=1, keepdim=True))
        return mean_of_real(hidden, mask)
