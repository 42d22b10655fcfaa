"""Mutations of files: of their bytes, and of what they hold (values of JSON, cells of tables, lines of text).

A mutation is a list of whole numbers that hypothesis draws and shrinks; what they mean is decided here.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Numbers = Sequence[int]
Mutation = Callable[[bytes, Numbers], bytes]

# Values that stand where nobody expects them.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63) - 1, 2**70),
    *("", " ", "x", "0", "0.0", "-1", "1e400", "NaN", "null", "\x00", "\ufeff", "é", "🙂" * 5, "x" * 5000, "a\nb", '"'),
    *("20200230", "00000000", "99999999", "2020-13-01", "0001-01-01", "9999-12-31", "99999-01-01", "infinity"),
    *("2020-01-01T25:61:61Z", "=1+1", "<b>", "../x", "/etc/passwd", "icd10cm", "atc", "I10", "E11.9//x", "PAD", "UNK"),
    *([], {}, [None], [[]], [1, "a"], {"a": 1}, {"system": 1}, {"resourceType": "Bundle", "entry": 3}),
)


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _at(content: bytes, number: int) -> int:
    return number % (len(content) + 1)


def change_bytes(content: bytes, numbers: Numbers) -> bytes:
    """Flip a bit, cut, repeat, move, insert or blank out some bytes."""
    kind, a, b, c = numbers
    start, size = _at(content, a), b % 64 + 1
    piece = content[start : start + size]
    match kind % 8:
        case 0 | 1 | 2 if start < len(content):
            return content[:start] + bytes([content[start] ^ (1 << b % 8)]) + content[start + 1 :]
        case 3:
            return content[:start]
        case 4:
            return content[:start] + piece + content[start:]
        case 5:
            other = _at(content, c)
            return content[:other] + piece + content[other + size :]
        case 6:
            return content[:start] + bytes([c % 256]) * size + content[start + size :]
        case _:
            return content[:start] + content[start + size :]


def change_text(content: bytes, numbers: Numbers) -> bytes:
    """Change a line: leave it out, repeat it, or put an odd value behind its last separator or in its place."""
    kind, a, b, c = numbers
    lines = content.split(b"\n")
    at, odd = a % len(lines), str(ODD[b % len(ODD)]).encode("utf-8", "surrogatepass")
    match kind % 5:
        case 0:
            lines.pop(at)
        case 1:
            lines.insert(c % (len(lines) + 1), lines[at])
        case 2:
            before, separator, _ = lines[at].rpartition(b":")
            lines[at] = before + separator + b" " + odd
        case 3:
            lines[at] = odd
        case _:
            lines[at] = lines[at][: c % (len(lines[at]) + 1)] + odd + lines[at][c % (len(lines[at]) + 1) :]
    return b"\n".join(lines)


def change_json(content: bytes, numbers: Numbers) -> bytes:
    """Change one value of a JSON document, or of one line of several: its kind, its place, or whether it is there."""
    text = content.decode()
    try:
        return json.dumps(_changed(json.loads(text), numbers)).encode()
    except ValueError:
        lines = text.splitlines()
        at = numbers[1] % len(lines)
        lines[at] = json.dumps(_changed(json.loads(lines[at]), numbers))
        return "\n".join(lines).encode()


def _changed(value: Any, numbers: Numbers) -> Any:
    kind, a, b, c = numbers
    holder: list[Any] = [value]
    place: Any = 0
    inside: Any = holder
    while isinstance(inside[place], dict | list) and inside[place] and a % 5:
        inside = inside[place]
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        a, choice = divmod(a // 5, max(len(keys), 1))
        place = list(keys)[choice]
    match kind % 6:
        case 0 if inside is not holder:
            del inside[place]
        case 1 if isinstance(inside, list):
            inside.append(inside[place])
        case 2 if isinstance(inside, dict):
            inside[str(ODD[b % len(ODD)])] = inside.pop(place)
        case 3:
            inside[place] = _deep(1 + c % 1500)
        case 4:
            inside[place] = [inside[place]] * (c % 3)
        case _:
            inside[place] = ODD[b % len(ODD)]
    return holder[0] if holder else None


def change_table(content: bytes, numbers: Numbers) -> bytes:
    """Change a cell of a CSV, leave out or repeat a column or row, or swap two cells."""
    kind, a, b, c = numbers
    text = content.decode("utf-8-sig", "surrogateescape")
    separator = max(",\t;", key=text.partition("\n")[0].count)
    rows = list(csv.reader(io.StringIO(text), delimiter=separator))
    row = rows[a % len(rows)]
    column = b % max(len(row), 1)
    match kind % 7:
        case 0:
            rows = [[cell for i, cell in enumerate(cells) if i != column] for cells in rows]
        case 1:
            rows = [[*cells, *cells[column : column + 1]] for cells in rows]
        case 2:
            rows.pop(a % len(rows))
        case 3:
            rows.append(list(row))
        case 4 if row:
            other = rows[c % len(rows)]
            if column < len(other):
                row[column], other[column] = other[column], row[column]
        case _ if row:
            row[column] = str(ODD[c % len(ODD)])
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")


def change_parquet(content: bytes, numbers: Numbers) -> bytes:
    """Change a column of a Parquet file: leave it out, make it another type, or put nulls or odd values into it."""
    import pyarrow
    import pyarrow.parquet

    kind, a, b, c = numbers
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    place = a % table.num_columns
    name, column = table.column_names[place], table.column(place)
    match kind % 5:
        case 0:
            table = table.remove_column(place)
        case 1:
            table = table.set_column(place, name, pyarrow.nulls(len(table), column.type))
        case 2:
            types = (pyarrow.string(), pyarrow.int8(), pyarrow.float64(), pyarrow.date32(), pyarrow.timestamp("us"))
            made: Any = pyarrow.nulls(len(table), types[b % len(types)])
            if b % 2:
                numbers_of = pyarrow.array([c * 1000 - 10**7] * len(table), pyarrow.int64())
                kind_of = (pyarrow.int64(), pyarrow.timestamp("s"), pyarrow.uint64(), pyarrow.duration("s"))
                wanted = kind_of[c % len(kind_of)]
                made = numbers_of.view(wanted)
            table = table.set_column(place, name, made)
        case 3:
            table = table.rename_columns([*table.column_names[:-1], table.column_names[place]])
        case _:
            values = column.to_pylist()
            if values:
                values[b % len(values)] = ODD[c % len(ODD)]
            try:
                table = table.set_column(place, name, pyarrow.array(values, column.type))
            except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
                table = table.set_column(place, name, pyarrow.array(list(map(str, values))))
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def change_tensors(content: bytes, numbers: Numbers) -> bytes:
    """Change a value, the type or the length of a column of a dataset, or what it says of itself."""
    import torch

    kind, a, b, c = numbers
    held = torch.load(io.BytesIO(content), weights_only=True)
    columns = held.get("columns", {})
    name = sorted(columns)[a % len(columns)]
    column = columns[name].clone()
    match kind % 6:
        case 0 | 1 if len(column):
            info = None if column.dtype == torch.bool else torch.iinfo(column.dtype)
            limits = (0, 1, 1, 0) if info is None else (info.min, info.max, -1, c % 1000)
            column[b % len(column)] = min(max(limits[c % 4], limits[0]), limits[1])
            columns[name] = column
        case 2:
            kinds = (torch.float32, torch.int64, torch.int8, torch.bool, torch.complex64)
            columns[name] = column.to(kinds[b % len(kinds)])
        case 3:
            columns[name] = column[: b % (len(column) + 1)]
        case 4:
            columns[name] = (column.reshape(-1, 1), column[:1].expand(b % 100), column.flip(0), ODD[c % len(ODD)])[
                b % 4
            ]
        case _:
            fields = sorted(held)
            held[fields[a % len(fields)]] = ODD[c % len(ODD)]
    out = io.BytesIO()
    torch.save(held, out)
    return out.getvalue()


def zipped(change: Mutation) -> Mutation:
    """Return the mutation of what a gzip file holds."""
    return lambda content, numbers: gzip.compress(change(gzip.decompress(content), numbers), 1)


def mutations_of(path: Path) -> list[Mutation]:
    """Return the mutations that suit a file, by its name."""
    name = path.name.lower()
    inner = name.removesuffix(".gz")
    kinds: list[Mutation] = []
    if inner.endswith((".json", ".jsonl", ".ndjson")):
        kinds = [change_json, change_text]
    elif inner.endswith((".csv", ".tsv")):
        kinds = [change_table, change_text]
    elif inner.endswith((".yaml", ".yml")):
        kinds = [change_text]
    elif inner.endswith(".parquet"):
        kinds = [change_parquet]
    elif inner.endswith(".pt"):
        kinds = [change_tensors]
    if inner != name:
        kinds = [zipped(kind) for kind in kinds] + [zipped(change_bytes)]
    return [change_bytes, *kinds]
