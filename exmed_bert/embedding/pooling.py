"""From histories to vectors: the hidden states of a model's last layer, pooled."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.models.code_tree import TreeRows, with_sums
from exmed_bert.models.heads import mean_of_real
from exmed_bert.models.model import ExMedBertModel

Pooling = Literal["mean", "last-visit", "query"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class Embedder:
    """Embeds histories with the encoder of a model."""

    def __init__(
        self, encoder: ExMedBertModel, form: ModelInput, pooling: Pooling, batch_size: int, rows: TreeRows | None = None
    ) -> None:
        """Set how.

        Args:
            encoder: of a pretrained or a fine-tuned model; on its device everything is computed.
            form: in which the model takes histories.
            pooling: ``mean`` over the codes of the history, ``last-visit`` over those of its last visit, or ``query``:
                a MASK after the history, one for each kind of code, as the prompt of a fine-tuned model has it.
            batch_size: histories per pass.
            rows: what the model's codes are sums of, for histories with further codes.
        """
        self.encoder = encoder.eval()
        self.pooling = pooling
        self.batch_size = batch_size
        used = form.vocabulary.entities
        queries = np.unique(used[used > 0]).tolist() if pooling == "query" else []
        self._queries = len(queries)
        self._rows = rows
        self._table = encoder.get_input_embeddings().weight
        self._collate = PromptCollator(queries, encoder.config.max_position_embedding - 1)

    @torch.inference_mode()
    def embed(self, histories: LabeledPatients, bf16: bool = False) -> np.ndarray:
        """Return the embedding of each history, (N, hidden) float32.

        Args:
            histories: N of them.
            bf16: whether matrix products are computed in bfloat16.
        """
        rows = LabeledRows(histories, np.arange(len(histories)))
        order = np.argsort(rows.lengths, kind="stable")  # of like length together, so that there is little padding
        device = self.encoder.device
        vocabulary = histories.dataset.info.vocabulary
        if self._rows is not None and len(vocabulary) > len(self._table):
            self._table = with_sums(self._table, self._rows, vocabulary.keys)
        has_new = len(self._table) > len(self.encoder.get_input_embeddings().weight)
        pooled = []
        for first in range(0, len(order), self.batch_size):
            batch = self._collate(rows.batch(order[first : first + self.batch_size]))
            del batch["labels"]
            inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            if has_new:
                inputs["inputs_embeds"] = F.embedding(inputs["input_ids"], self._table)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                hidden = self.encoder(**inputs).last_hidden_state
            pooled.append(self._pool(hidden.float(), inputs))
        found = np.empty((len(order), self.encoder.config.hidden_size), dtype=np.float32)
        if pooled:
            found[order] = torch.cat(pooled).cpu().numpy()
        return found

    def _pool(self, hidden: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """(B, L, hidden) -> (B, hidden)."""
        mask, visits = inputs["attention_mask"], inputs["visit_ids"]
        if self.pooling == "query":
            place = mask.sum(dim=1, keepdim=True) - 1 - torch.arange(self._queries, device=hidden.device)
            return hidden.gather(1, place[:, :, None].expand(-1, -1, hidden.shape[2])).mean(dim=1)
        if self.pooling == "last-visit":
            mask = mask * (visits == visits.amax(dim=1, keepdim=True))
        return mean_of_real(hidden, mask)
