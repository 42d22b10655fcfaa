"""Starting a model's code embeddings from ClinVec: each code's own vector, or that of its nearest ancestor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exmed_bert.clinvec.reader import FOLDER_CONTENT, CodeKey, read_clinvec
from exmed_bert.clinvec.resize import resize
from exmed_bert.codes import CodeSystem, ancestors
from exmed_bert.config import ClinVecSettings
from exmed_bert.console import OptionError


@dataclass(frozen=True)
class CodeInitialisation:
    """Which codes of a model's vocabulary start from a vector, and from which.

    Attributes:
        codes: the vocabulary in the order of its ids.
        systems: the code system of each id, None for special tokens.
        source: for each id the code whose vector it takes: itself, an ancestor, or None.
        ids: (k,) int64, the ids that take a vector, ascending.
        vectors: (k, hidden_size) float32, the vector of each of them.
        notes: lines for the log.
    """

    codes: Sequence[str]
    systems: Sequence[CodeSystem | None]
    source: list[str | None]
    ids: np.ndarray
    vectors: np.ndarray
    notes: list[str]

    def counts(self) -> dict[str, int]:
        """Return how many codes have their ``exact`` vector, an ``ancestor``'s, or are ``without``.

        Special tokens are in none of the three.
        """
        exact = sum(source == code for source, code in zip(self.source, self.codes, strict=True))
        medical = sum(system is not None for system in self.systems)
        return {"exact": exact, "ancestor": len(self.ids) - exact, "without": medical - len(self.ids)}


def initialise_codes(
    codes: Sequence[str],
    systems: Sequence[CodeSystem | None],
    settings: ClinVecSettings,
    hidden_size: int,
    row_norm: float,
    seed: int,
) -> CodeInitialisation:
    """Find a ClinVec vector for each code of a model's vocabulary and fit it to the model.

    The vectors are resized to the model's width and all multiplied by one factor: published values of about 10 would
    drown age, sex and position, which are added to the code's embedding, while the vectors' relative lengths mean
    something and stay.

    Args:
        codes: the vocabulary in the order of its ids, in their systems' usual spelling.
        systems: the code system of each id; None marks a special token, which takes no vector.
        settings: where ClinVec is, and how to use it.
        hidden_size: width of the model.
        row_norm: mean Euclidean norm of the result's vectors, that of the rows the model would draw itself.
        seed: seed of random padding.

    Raises:
        OptionError: no folder is given, or the dimensions differ and may not be changed as the settings say.
        InputError: the ClinVec files are missing or wrong.
    """
    if settings.clinvec_dir is None:
        raise OptionError(f"--use-clinvec needs --clinvec-dir, a folder with {FOLDER_CONTENT}")
    wanted = {(system, code) for code, system in zip(codes, systems, strict=True) if system is not None}
    clinvec = read_clinvec(settings.clinvec_dir, settings.vocab_types, wanted)
    dimension = clinvec.dimension
    if dimension != hidden_size and not settings.resize_if_needed:
        raise OptionError(
            f"--hidden-size: {hidden_size} differs from the {dimension} dimensions of the ClinVec vectors in "
            f"{settings.clinvec_dir}; give --resize-if-needed or --hidden-size {dimension}"
        )
    notes = [f"{len(clinvec.rows):,} ClinVec vectors for these codes and their ancestors in {settings.clinvec_dir}"]

    source = [
        None if system is None else _source(code, system, clinvec.rows, settings.use_hierarchical_init)
        for code, system in zip(codes, systems, strict=True)
    ]
    ids = np.array([i for i, code in enumerate(source) if code is not None], dtype=np.int64)
    vectors = np.empty((0, hidden_size), dtype=np.float32)
    if len(ids):
        resized = resize(clinvec.vectors, hidden_size, settings.resize_method, seed)
        vectors, factor = _with_mean_norm(resized.vectors[[clinvec.rows[systems[i], source[i]] for i in ids]], row_norm)
        notes += [resized.note, f"ClinVec vectors multiplied by {factor:.3g}: their mean norm is now {row_norm:.3g}"]

    initialisation = CodeInitialisation(codes, systems, source, ids, vectors, notes)
    counts = initialisation.counts()
    notes.append(
        f"code embeddings from ClinVec: {counts['exact']:,} exact, {counts['ancestor']:,} from an ancestor, "
        f"{counts['without']:,} without a vector"
    )
    return initialisation


def _source(code: str, system: CodeSystem, rows: dict[CodeKey, int], hierarchical: bool) -> str | None:
    """Return the code itself or its nearest ancestor, whichever has a vector first."""
    candidates = [code, *ancestors(code, system)] if hierarchical else [code]
    return next((candidate for candidate in candidates if (system, candidate) in rows), None)


def _with_mean_norm(vectors: np.ndarray, norm: float) -> tuple[np.ndarray, float]:
    """Return the vectors multiplied by one factor, and the factor. Vectors that are all zero stay zero."""
    mean = float(np.linalg.norm(vectors, axis=1).mean())
    factor = norm / mean if mean > 0 else 1.0
    return vectors * np.float32(factor), factor
