"""What the baselines see: a bag of codes with counts, presence and recency, and who the patient is, one row a patient.

Nothing but a history up to the index date enters; columns are chosen by the training patients alone.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import sparse

from exmed_bert import codes
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK, CodeVocabulary

RECENCY_DAYS = 180.0  # a code that was last seen so long before the index date has a recency of 1/e
ANSWER_SPREAD = 3.0  # of a model's answer among the columns, so that a ridge hardly shrinks it
LEAST_PATIENTS = 2  # training patients who have a code or group, or it gets no column

_DECADES = 10  # 0-9 years to 90 and over


ColumnSet = Literal["person", "codes", "groups"]
COLUMN_SETS: tuple[ColumnSet, ...] = get_args(ColumnSet)  # each holds the ones before it


@dataclass(frozen=True)
class Features:
    """N rows of C columns.

    Attributes:
        matrix: (N, C) float32; counts as log(1 + n), presence 0 or 1, recency exp(-days / 180), the rest near [0, 1].
        names: C names, such as ``icd10cm:E11.9 count``.
        sets: (C,) the set that each column comes with, an index into `COLUMN_SETS`.
    """

    matrix: sparse.csr_array
    names: list[str]
    sets: np.ndarray

    def of(self, name: ColumnSet) -> sparse.csr_array:
        """Return the columns of a set: who the patient is; the codes too; the groups above the codes too."""
        return _narrow(self.matrix[:, np.flatnonzero(self.sets <= COLUMN_SETS.index(name))])


def most_used(matrix: sparse.csr_array, rows: np.ndarray, most: int) -> np.ndarray:
    """Return the columns that most of ``rows`` have a value in, at most ``most``, as a dense (N, most) array."""
    used = np.bincount(matrix[rows].indices, minlength=matrix.shape[1])
    return matrix[:, np.sort(np.argsort(-used, kind="stable")[:most])].toarray()


def with_answer(
    matrix: sparse.csr_array | np.ndarray, answer: np.ndarray, rows: np.ndarray
) -> sparse.csr_array | np.ndarray:
    """Return N rows, sparse or dense, with a column more: a model's answer (N,), scaled by its spread in ``rows``."""
    spread = max(float(answer[rows].std()), 1e-6) / ANSWER_SPREAD
    column = ((answer - answer[rows].mean()) / spread).astype(np.float32)
    if isinstance(matrix, np.ndarray):
        return np.column_stack((matrix, column))
    return _narrow(sparse.csr_array(sparse.hstack((matrix, sparse.csr_array(column[:, None])), format="csr")))


def features(patients: LabeledPatients, train_rows: np.ndarray) -> Features:
    """Return the features of all N patients.

    Each code, and each group above it that `groups_of` names, has three columns: how often, whether, how recently.

    Args:
        patients: histories up to their index dates.
        train_rows: whose codes get columns.
    """
    columns = patients.dataset.columns
    n, vocabulary = len(patients), patients.dataset.info.vocabulary
    lengths = patients.dataset.lengths
    patient = np.repeat(np.arange(n), lengths)
    day = columns["visit_days"].numpy()[
        np.repeat(columns["visit_offsets"].numpy()[:-1], lengths) + columns["visit_ids"].numpy() - 1
    ]
    days_ago = np.maximum(patients.index_days[patient] - day.astype(np.int64), 0)
    recency = np.exp(-days_ago / RECENCY_DAYS).astype(np.float32)

    names, member = groups_of(vocabulary)  # (V, depth), which names a code falls under
    group = member[columns["codes"].numpy()]  # (tokens, depth)
    real = group >= 0
    depth = group.shape[1]
    token_patient, token_recency = np.repeat(patient, depth)[real.ravel()], np.repeat(recency, depth)[real.ravel()]
    key, place = np.unique(token_patient * len(names) + group[real], return_inverse=True)
    row, column = np.divmod(key, len(names))
    count = np.bincount(place, minlength=len(key))
    latest = np.zeros(len(key), dtype=np.float32)
    np.maximum.at(latest, place, token_recency)

    in_training = np.bincount(column[np.isin(row, train_rows)], minlength=len(names))
    kept = np.flatnonzero(in_training >= LEAST_PATIENTS)
    bags = {"count": np.log1p(count), "present": np.ones(len(key)), "recency": latest}
    blocks = [
        sparse.csr_array((values.astype(np.float32), (row, column)), shape=(n, len(names)))[:, kept]
        for values in bags.values()
    ]
    who, who_names = _who(patients, patient, day)
    matrix = _narrow(sparse.csr_array(sparse.hstack([*blocks, sparse.csr_array(who)], format="csr")))
    own = {f"{key[0]}:{key[1]}" for key in vocabulary.keys if key is not None}
    is_group = np.array([names[c] not in own for c in kept], dtype=bool)
    sets = np.concatenate([*(np.where(is_group, 2, 1) for _ in bags), np.zeros(len(who_names), dtype=np.int64)])
    return Features(matrix, [f"{names[c]} {kind}" for kind in bags for c in kept] + who_names, sets)


def groups_of(vocabulary: CodeVocabulary) -> tuple[list[str], np.ndarray]:
    """Return the names under which codes are counted, and for each id the indices of its names.

    A code counts under itself and under every ancestor in its tree: an ICD-10-CM code up to its category, an ATC code
    up to its anatomical group. An ancestor that covers the same codes as a name below it would repeat its columns and
    is left out.

    Returns:
        Names, and (V, depth) int32 with -1 where a code has no more.
    """
    covered: dict[str, list[int]] = {}  # the codes under each name, nearest name first
    for token, key in enumerate(vocabulary.keys):
        if key is not None:
            system, code = key
            for name in (code, *codes.ancestors(code, system)):
                covered.setdefault(f"{system}:{name}", []).append(token)
        elif token == UNK:
            covered[vocabulary.tokens[UNK]] = [UNK]
    longest_first = sorted(covered, key=len, reverse=True)
    first = {tuple(covered[name]): name for name in reversed(longest_first)}
    names = sorted(first.values())
    under: list[list[int]] = [[] for _ in range(len(vocabulary))]
    for i, name in enumerate(names):
        for token in covered[name]:
            under[token].append(i)
    member = np.full((len(under), max(1, *map(len, under))), -1, dtype=np.int32)
    for token, own in enumerate(under):
        member[token, : len(own)] = own
    return names, member


def age_at_index(patients: LabeledPatients) -> np.ndarray:
    """Return the age in years, (N,): the calendar year of the index date minus the year of birth."""
    years = patients.index_days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return years - patients.dataset.columns["birth_years"].numpy()


def _narrow(matrix: sparse.csr_array) -> sparse.csr_array:
    """Return the matrix with indices of 32 bits, which scikit-learn's liblinear and trees insist on."""
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return matrix


def _who(patients: LabeledPatients, patient: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return age, sex, state and how much care: (N, columns) float32 and the columns' names."""
    columns, n = patients.dataset.columns, len(patients)
    age = age_at_index(patients)
    first, last = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(first, patient, day)
    np.maximum.at(last, patient, day)
    seen = patients.dataset.lengths > 0
    visits = np.diff(columns["visit_offsets"].numpy())
    parts = {
        "age": age / 100,
        "visits": np.log1p(visits) / 4,
        "codes": np.log1p(patients.dataset.lengths) / 4,
        "years observed": np.where(seen, last - first, 0) / 365.25 / 5,
        "time since last visit": np.where(seen, np.exp(-(patients.index_days - last) / RECENCY_DAYS), 0),
    }
    decade = np.clip(age // 10, 0, _DECADES - 1)
    parts |= {f"age {10 * d}-{10 * d + 9}": decade == d for d in range(_DECADES)}
    for column in patients.dataset.info.static_columns:
        ids, tokens = patients.dataset.static_ids(column.name), column.tokens
        parts |= {f"{column.name} {tokens[i]}": ids == i for i in (UNK, *range(len(SPECIAL_TOKENS), len(tokens)))}
    return np.stack([np.asarray(part, dtype=np.float32) for part in parts.values()], axis=1), list(parts)
