"""Where the codes of a model start: each from its own vector, or from what its relatives in the tree say of it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from exmed_bert.clinvec.reader import clinvec_folder, read_clinvec
from exmed_bert.clinvec.relatives import How, Origin, Relatives, deviations
from exmed_bert.clinvec.resize import resize
from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import OptionError
from exmed_bert.settings import ClinVecSettings


@dataclass(frozen=True)
class CodeInitialization:
    """Which codes of a model's vocabulary start from a vector, and where it comes from.

    Attributes:
        keys: (code system, code) of each id of the vocabulary; None for special tokens.
        origins: where the vector of each id comes from.
        ids: (k,) int64, the ids that take a vector, ascending.
        vectors: (k, hidden_size) float32, the vector of each of them.
        vocabularies: how many vectors each vocabulary holds.
        notes: lines for the log.
        warnings: what was left out, a line each.
    """

    keys: Sequence[CodeKey | None]
    origins: list[Origin]
    ids: np.ndarray
    vectors: np.ndarray
    vocabularies: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def ids_of(self, how: How) -> list[int]:
        """Return the ids whose vector comes from there."""
        return [i for i, origin in enumerate(self.origins) if origin.how == how and self.keys[i] is not None]


def initialize_codes(
    keys: Sequence[CodeKey | None], settings: ClinVecSettings, hidden_size: int, row_norm: float, seed: int
) -> CodeInitialization:
    """Find a vector for each code of a model's vocabulary in ClinVec's files and fit it to the model.

    The vectors are resized to the model's width and all multiplied by one factor: published values of about 10 would
    drown age, sex and position, which are added to the code's embedding, while the vectors' relative lengths mean
    something and stay.

    Args:
        keys: (code system, code) of each id of the vocabulary, in the system's usual spelling; None marks a special
            token, which takes no vector.
        settings: where ClinVec is, and how to use it.
        hidden_size: width of the model.
        row_norm: mean Euclidean norm of the result's vectors, that of the rows the model would draw itself; the
            settings' ``clinvec_scale`` overrules it.
        seed: seed of what resizing and initialization draw.

    Raises:
        OptionError: no folder is given, or the dimensions differ and may not be changed as the settings say.
        InputError: the ClinVec files are missing or wrong.
    """
    systems: AbstractSet[str] = {key[0] for key in keys if key is not None}
    clinvec = read_clinvec(clinvec_folder(settings), settings.vocab_types, systems)
    dimension = clinvec.dimension
    if dimension != hidden_size and not settings.resize_if_needed:
        raise OptionError(
            f"--hidden-size: {hidden_size} differs from the {dimension} dimensions of the ClinVec vectors in "
            f"{settings.clinvec_dir}; give --resize-if-needed or --hidden-size {dimension}"
        )
    sizes = ", ".join(
        f"{name} {size:,}" + (f" ({clinvec.without[name]:,} nodes without)" if name in clinvec.without else "")
        for name, size in clinvec.sizes.items()
    )
    notes = [f"ClinVec vectors in {settings.clinvec_dir}: {sizes}"]
    table = clinvec.vectors
    if len(table):
        resized = resize(table, hidden_size, settings.resize_method, seed)  # fitted to all vectors at once
        table = resized.vectors
        notes.append(resized.note)
    served = {key: row for key, row in clinvec.rows.items() if key[0] in systems}
    ids, (vectors,), origins, more = initialize_from(
        keys, list(served), [table[list(served.values())]], settings.use_hierarchical_init, seed
    )
    if len(ids):
        mean = float(np.linalg.norm(vectors, axis=1).mean())
        factor = settings.clinvec_scale or (row_norm / mean if mean > 0 else 1.0)
        vectors = vectors * np.float32(factor)
        notes.append(f"ClinVec vectors multiplied by {factor:.3g}: their mean norm is now {mean * factor:.3g}")
    return CodeInitialization(keys, origins, ids, vectors, clinvec.sizes, notes + more, clinvec.warnings)


def initialize_from(
    keys: Sequence[CodeKey | None],
    known: Sequence[CodeKey],
    tables: Sequence[np.ndarray],
    hierarchical: bool,
    seed: int,
) -> tuple[np.ndarray, list[np.ndarray], list[Origin], list[str]]:
    """Return the ids that take a vector, (k,), their rows of each table, the origin of each id, and notes.

    Args:
        keys: (code system, code) of each id; None for special tokens.
        known: (code system, code) of each row of the tables.
        tables: (n, d) float32 each; what is learned of relatives is learned on the first.
        hierarchical: whether codes without a vector are estimated from their relatives.
        seed: seed of the small steps that keep codes with the same relatives apart.
    """
    rows = {key: row for row, key in enumerate(known)}
    origins = [Origin("own") if key in rows else Origin("none") for key in keys]
    own = np.array([i for i, key in enumerate(keys) if key in rows], dtype=np.int64)
    ids, vectors = own, [table[[rows[keys[i]] for i in own.tolist()]] for table in tables]
    missing = {i: key for i, key in enumerate(keys) if key is not None and key not in rows}
    if not (hierarchical and missing and known):
        return ids, vectors, origins, []
    relatives = Relatives(known)
    trust = relatives.measure_trust(tables[0])
    wanted = list(missing.values())
    weights, from_relatives = relatives.estimates(wanted, trust)
    for i, origin in zip(missing, from_relatives, strict=True):
        origins[i] = origin
    estimated = np.array([origin.how != "none" for origin in from_relatives])
    ids = np.concatenate([own, np.array(list(missing), dtype=np.int64)[estimated]])
    order = np.argsort(ids)
    for i, table in enumerate(tables):
        estimates = relatives.blend(weights, table)
        if table.shape[1] > 1:
            estimates += deviations(wanted, relatives.spreads(wanted, table), table.shape[1], seed)
        vectors[i] = np.concatenate([vectors[i], estimates[estimated]])[order]
    return ids[order], vectors, origins, [_trust_note(system, value) for system, value in sorted(trust.items())]


def _trust_note(system: str, trust: float) -> str:
    said = "its parent alone" if np.isinf(trust) else f"its siblings and its parent, which counts as {trust:g} of them"
    return f"a code of {code_system(system).title} without a vector is estimated best from {said}"
