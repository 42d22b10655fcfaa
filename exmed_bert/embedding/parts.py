"""Embeddings in Parquet: parts that are written as they come, joined to one file at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.data.pieces import are_numbers
from exmed_bert.data.static_columns import STATIC
from exmed_bert.embedding.histories import descriptions
from exmed_bert.staging import atomic_write

COLUMNS = ("patient_id", "prediction_time", "embedding")
PARTS = "part-*.parquet"


@dataclass(frozen=True)
class Sample:
    """Some of the embeddings.

    Attributes:
        vectors: (n, hidden) float32.
        patients: (n,) numbers that tell the patients from each other.
        described: by name of a static column, or ``age``, n values.
    """

    vectors: np.ndarray
    patients: np.ndarray
    described: dict[str, list[str | None]]


def part_path(folder: Path, number: int) -> Path:
    """Return where a part is written."""
    return folder / PARTS.replace("*", f"{number:06d}")


def write_part(path: Path, histories: LabeledPatients, embeddings: np.ndarray) -> None:
    """Write the embeddings of N histories, (N, hidden), with their ages and static columns, whole or not at all."""
    ids = [histories.dataset.patient_id(row) for row in range(len(histories))]
    kind = pyarrow.int64() if are_numbers(ids) else pyarrow.string()
    columns: dict[str, Any] = {
        "patient_id": pyarrow.array(ids if kind == pyarrow.int64() else map(str, ids), type=kind),
        "prediction_time": pyarrow.array(histories.index_days.astype("datetime64[D]").astype("datetime64[us]")),
        "embedding": pyarrow.FixedSizeListArray.from_arrays(embeddings.ravel(), embeddings.shape[1]),
    }
    columns |= {
        f"{STATIC}{name}": pyarrow.array(values, type=pyarrow.string()) for name, values in descriptions(histories)
    }
    with atomic_write(path) as part:
        pyarrow.parquet.write_table(pyarrow.table(columns), part)


def join_parts(paths: Sequence[Path], target: Path, most: int, seed: int) -> Sample:
    """Write the parts one after another to one file, whole or not at all, and return a sample of the embeddings.

    Args:
        paths: of the parts, in order.
        target: the file; ids are text in it where any is.
        most: embeddings of the sample.
        seed: of the sample.
    """
    schemas = [pyarrow.parquet.read_schema(path) for path in paths]
    as_text = any(schema.field(COLUMNS[0]).type == pyarrow.string() for schema in schemas)
    schema = pyarrow.schema([schemas[0].field(name) for name in COLUMNS])
    if as_text:
        schema = schema.set(0, pyarrow.field(COLUMNS[0], pyarrow.string()))
    counts = [pyarrow.parquet.read_metadata(path).num_rows for path in paths]
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(sum(counts), min(most, sum(counts)), replace=False))
    samples = []
    with (
        atomic_write(target) as part,
        pyarrow.parquet.ParquetWriter(part, schema, write_page_checksum=True) as writer,
    ):
        for first, table in _tables(paths, counts):
            if len(table):
                writer.write_table(table.select(COLUMNS).cast(schema), row_group_size=len(table))
            own = drawn[(drawn >= first) & (drawn < first + len(table))] - first
            chosen = table.take(pyarrow.array(own)).drop_columns([COLUMNS[1]])
            samples.append(chosen.set_column(0, COLUMNS[0], chosen[COLUMNS[0]].cast(pyarrow.string())))
    sample = pyarrow.concat_tables(samples).combine_chunks()
    return Sample(
        vectors=vectors_of(sample),
        patients=sample[COLUMNS[0]].combine_chunks().dictionary_encode().indices.to_numpy(),
        described={
            name.removeprefix(STATIC): sample[name].to_pylist()
            for name in sample.column_names
            if name.startswith(STATIC)
        },
    )


def vectors_of(table: pyarrow.Table) -> np.ndarray:
    """Return the embeddings of a table, (N, hidden) float32."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size).copy()  # Arrow's own is read-only


def _tables(paths: Sequence[Path], counts: Sequence[int]) -> Iterator[tuple[int, pyarrow.Table]]:
    """Yield the number of each part's first row, and the part."""
    first = 0
    for path, count in zip(paths, counts, strict=True):
        yield first, pyarrow.parquet.read_table(path)
        first += count
