"""A transformer of scikit-learn: patients to vectors, to stand in a Pipeline."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from exmed_bert.embedding.pooling import Pooling
from exmed_bert.interface.given import Patients
from exmed_bert.interface.model import PatientModel, load_model


class PatientEmbedder(TransformerMixin, BaseEstimator):
    """Embeds patients with a model that was trained before; nothing is learned from those that it is fitted on.

    ``X`` is a list of records, or whatever else `given.as_input` takes; cross-validation needs a list. The rows of the
    result are in the order of the patients; who has no event has missing values, for which a
    ``SimpleImputer(keep_empty_features=True)`` after it stands in.

    Of scikit-learn's checks (``check_estimator``) those apply that pass no data: the others pass tables of numbers,
    which are no patients, and are left out by the tag ``two_d_array``.

    Args:
        model: the folder of a model, or one that is loaded.
        pooling: as `PatientModel.embed` takes it.
        at: likewise.
    """

    def __init__(
        self, model: str | Path | PatientModel = "output/synthetic_pretrain", pooling: Pooling | None = None,
        at: str | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.pooling = pooling
        self.at = at

    def fit(self, X: Patients, y: Any = None) -> Self:
        """Load the model."""
        self.model_ = self.model if isinstance(self.model, PatientModel) else load_model(self.model)
        self.n_features_out_ = int(self.model_.network.config.hidden_size)
        return self

    def transform(self, X: Patients) -> np.ndarray:
        """Return the vectors of patients, (N, hidden) float32.

        Raises:
            InputError: the patients cannot be read.
        """
        check_is_fitted(self)
        return self.model_.embed(X, self.pooling, self.at).to_numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns: embedding0, embedding1, ..."""
        check_is_fitted(self)
        return np.array([f"embedding{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.dict = True
        tags.input_tags.allow_nan = True
        return tags
