"""MEDS: one Parquet file per split, rows of subject, time and code."""

from datetime import date, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet


def write(folder: Path, records: list[dict]) -> None:
    """Write data/<split>/0.parquet, metadata/codes.parquet and metadata/subject_splits.parquet."""
    parts: dict[str, list[tuple]] = {"train": [], "tuning": [], "held_out": []}
    splits = []
    for number, record in enumerate(records):
        split = "train" if number % 10 < 7 else "tuning" if number % 10 < 9 else "held_out"
        subject = record["patient_id"]
        splits.append((subject, split))
        rows = [(subject, None, f"GENDER//{record['sex'][0]}"), (subject, None, f"STATE//{record['patient_state']}")]
        rows.append((subject, datetime(record["birth_year"], 1, 1), "MEDS_BIRTH"))
        events = [
            (day, f"ICD10CM//{code}") for code, day in zip(record["diagnoses"], record["diagnosis_dates"], strict=True)
        ]
        events += [
            (day, f"ATC//{code}") for code, day in zip(record["drugs"], record["prescription_dates"], strict=True)
        ]
        for day, code in sorted(events, key=lambda event: event[0]):
            rows.append((subject, datetime.combine(date.fromisoformat(day), datetime.min.time()), code))
        parts[split] += rows
    schema = pyarrow.schema(
        [
            ("subject_id", pyarrow.int64()),
            ("time", pyarrow.timestamp("us")),
            ("code", pyarrow.string()),
            ("numeric_value", pyarrow.float32()),
        ]
    )
    for split, rows in parts.items():
        columns = [*zip(*rows, strict=True), [None] * len(rows)]
        (folder / "data" / split).mkdir(parents=True)
        table = pyarrow.table(dict(zip(schema.names, columns, strict=True)), schema)
        pyarrow.parquet.write_table(table, folder / "data" / split / "0.parquet", compression="zstd")
    (folder / "metadata").mkdir()
    codes = sorted({row[2] for rows in parts.values() for row in rows})
    listed = pyarrow.table(
        {
            "code": codes,
            "description": pyarrow.nulls(len(codes), pyarrow.string()),
            "parent_codes": pyarrow.nulls(len(codes), pyarrow.list_(pyarrow.string())),
        }
    )
    pyarrow.parquet.write_table(listed, folder / "metadata" / "codes.parquet")
    table = pyarrow.table({"subject_id": [s for s, _ in splits], "split": [s for _, s in splits]})
    pyarrow.parquet.write_table(table, folder / "metadata" / "subject_splits.parquet")
