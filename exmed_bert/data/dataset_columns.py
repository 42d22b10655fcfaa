"""The columns of a dataset: how they are called, and what they have to be.

Opening looks at kinds, lengths and starts, which takes the same few milliseconds for any number of tokens; values are
looked at once a run, when the whole file is read for its checksums too.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.patient import DAY_FIELDS, NO_DAY
from exmed_bert.data.static_columns import STATIC
from exmed_bert.data.vocabulary import UNK

# One value per token, visit or patient, or the start of each patient (patients + 1 values).
TOKEN_COLUMNS = ("codes", "entities", "ages", "visit_ids")
MASK_COLUMNS = ("shown_codes", "masked")  # of a dataset with static masks
PATIENT_COLUMNS = ("patient_hashes", "birth_years", "plos")
START_COLUMNS = ("offsets", "visit_offsets")

_ID_STARTS = "id_offsets"
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)
_KINDS = {"masked": (torch.bool,), "id_bytes": (torch.uint8,)} | dict.fromkeys(
    (*START_COLUMNS, _ID_STARTS, "patient_hashes", "id_numbers"), (torch.int64,)
)
_DAYS = (-719_162, 2_932_896)  # 0001-01-01 to 9999-12-31
_YEARS = (-9999, 9999)


def check_columns(columns: Mapping[str, torch.Tensor], info: DatasetInfo) -> None:
    """Refuse columns of a wrong kind, shape or length, and starts that do not rise; values are not looked at.

    Raises:
        ValueError: names the column, what it has, and what was expected.
    """
    wanted = set(_names(columns, info))
    if missing := wanted - set(columns):
        raise ValueError(f"column {min(missing)} is missing")
    for name, column in columns.items():
        if name not in wanted:
            raise ValueError(f"column {name!r} is none of a dataset's")
        _check_kind(name, column)
    patients = len(columns["offsets"]) - 1
    tokens = _check_starts("offsets", columns, patients)
    visits = _check_starts("visit_offsets", columns, patients)
    lengths = dict.fromkeys((*TOKEN_COLUMNS, *MASK_COLUMNS), tokens) | {"visit_days": visits}
    if _ID_STARTS in wanted:
        lengths["id_bytes"] = _check_starts(_ID_STARTS, columns, patients)
    for name in sorted(wanted - {*START_COLUMNS, _ID_STARTS}):
        if len(columns[name]) != (length := lengths.get(name, patients)):
            raise ValueError(f"column {name} has {len(columns[name]):,} values, expected {length:,}")
    longest = int(np.diff(columns["offsets"].numpy()).max(initial=0))
    if longest > info.max_length:
        raise ValueError(f"column offsets: a patient has {longest:,} tokens, expected at most {info.max_length:,}")


def check_values(columns: Mapping[str, torch.Tensor], info: DatasetInfo) -> None:
    """Refuse values out of range, of columns that `check_columns` has let pass; reads all of them.

    Raises:
        ValueError: names the column, the value, and what was expected.
    """
    arrays = {name: column.numpy() for name, column in columns.items()}
    for name, (least, most) in _ranges(info).items():
        values = arrays.get(name, np.empty(0))
        if name in DAY_FIELDS:
            values = values[values != NO_DAY]
        if len(values) and not least <= (low := int(values.min())) <= (high := int(values.max())) <= most:
            raise ValueError(f"column {name}: {low if low < least else high}, expected {least} to {most}")
    filled = np.flatnonzero(np.diff(arrays["offsets"]))  # patients with tokens
    if len(filled):
        last = np.maximum.reduceat(arrays["visit_ids"], arrays["offsets"][filled])
        visits = np.diff(arrays["visit_offsets"])[filled]
        if (beyond := last > visits).any():
            place = int(beyond.argmax())
            raise ValueError(
                f"column visit_ids: {int(last[place])}, expected at most the {int(visits[place])} of the patient"
            )
    if "id_bytes" in arrays:
        _check_texts(arrays["id_bytes"], arrays[_ID_STARTS])
    info.vocabulary.keys  # noqa: B018  # refuses a token that names no code of its system


def _names(columns: Mapping[str, torch.Tensor], info: DatasetInfo) -> Iterator[str]:
    """Yield the names of the columns that a dataset has: those that it must have, and others that it may have."""
    yield from (*TOKEN_COLUMNS, *PATIENT_COLUMNS, *START_COLUMNS, "visit_days")
    yield from (f"{STATIC}{column.name}" for column in info.static_columns)
    yield from ("id_numbers",) if "id_numbers" in columns else ("id_bytes", _ID_STARTS)
    static_masks = info.masking is not None and info.masking.mode == "static"
    yield from (name for name in MASK_COLUMNS if static_masks or name in columns)
    yield from (name for name in DAY_FIELDS if name in columns)


def _check_kind(name: str, column: torch.Tensor) -> None:
    if type(column) is not torch.Tensor or column.layout is not torch.strided or column.requires_grad:
        raise ValueError(f"column {name} is no plain tensor")
    if column.dim() != 1 or not column.is_contiguous() or column.device.type != "cpu":
        raise ValueError(f"column {name} has the shape {list(column.shape)}, expected one dimension without gaps")
    kinds = _KINDS.get(name, _INTEGERS)
    if column.dtype not in kinds:
        expected = ", ".join(str(kind).removeprefix("torch.") for kind in kinds)
        raise ValueError(f"column {name} holds {str(column.dtype).removeprefix('torch.')}, expected {expected}")


def _check_starts(name: str, columns: Mapping[str, torch.Tensor], patients: int) -> int:
    """Return the end of the last patient; the starts have to be as many as there are patients, and to rise from 0."""
    starts = columns[name].numpy()
    if not len(starts) or len(starts) != patients + 1:
        raise ValueError(f"column {name} has {len(starts):,} values, expected {max(patients, 0) + 1:,}")
    if starts[0] != 0:
        raise ValueError(f"column {name} begins with {int(starts[0])}, expected 0")
    if (falls := starts[1:] < starts[:-1]).any():
        place = int(falls.argmax()) + 1
        raise ValueError(
            f"column {name}: value {place:,} is {int(starts[place])}, less than {int(starts[place - 1])} before it"
        )
    return int(starts[-1])


def _ranges(info: DatasetInfo) -> dict[str, tuple[int, int]]:
    """Return the least and the greatest value of each column that has limits."""
    code = (UNK, len(info.vocabulary) - 1)
    return {
        "codes": code,
        "shown_codes": code,
        "entities": (0, len(info.vocabulary.entity_names) - 1),
        "ages": (UNK, info.age_vocabulary_size - 1),
        "visit_ids": (1, info.max_length),
        "visit_days": _DAYS,
        "birth_years": _YEARS,
        "plos": (-1, 1),
        **{f"{STATIC}{column.name}": (UNK, len(column.tokens) - 1) for column in info.static_columns},
        **dict.fromkeys(DAY_FIELDS, _DAYS),
    }


def _check_texts(content: np.ndarray, starts: np.ndarray) -> None:
    """Refuse ids that are no UTF-8: all bytes together, and none that begins within a character."""
    try:
        content.tobytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"column id_bytes: is no UTF-8 text: {error.reason}") from None
    begins = starts[:-1][starts[:-1] < len(content)]
    if ((content[begins] & 0xC0) == 0x80).any():
        raise ValueError("column id_offsets: an id begins within a character")
