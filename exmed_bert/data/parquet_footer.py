"""The numbers of rows and values of a Parquet file, read from its footer by hand.

The footer is a record of Thrift's compact protocol. Arrow reads it, too, but ends the whole process where a column says
something odd of itself: an exception of C++ that passes through `RowGroupMetaData.column`.
"""

import struct
from pathlib import Path
from typing import Any

_MAGIC = b"PAR1"
_LARGEST = 2**28  # bytes of a footer
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)  # of 16, 32 and 64 bits
# What is kept: by number of the field, what is within; None for a whole number.
_COLUMN = {3: {5: None}}  # its metadata: the number of values
_WANTED = {3: None, 4: {1: _COLUMN}}  # rows; row groups: their columns


def rows_and_values(path: Path) -> tuple[int, int] | None:
    """Return how many rows a Parquet file says to hold, and how many values; None where it cannot be read.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
        if len(end) < 8 or end[4:] != _MAGIC:
            return None
        length = struct.unpack("<I", end[:4])[0]
        if length > min(size - 8, _LARGEST):
            return None
        file.seek(size - 8 - length)
        footer = file.read(length)
    try:
        held = _Record(footer).struct(_WANTED)
        columns = [column for group in held.get(4, ()) for column in group.get(1, ())]
        return max(held.get(3, 0), 0), sum(max(column.get(3, {}).get(5, 0), 0) for column in columns)
    except (IndexError, ValueError, RecursionError, AttributeError, TypeError):
        return None


class _Record:
    """Bytes of Thrift's compact protocol and a place in them."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def struct(self, wanted: dict[int, Any]) -> dict[int, Any]:
        """Return those fields of a struct that are wanted, by number."""
        found: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._integer()
            if number in wanted:
                found[number] = self._value(kind & 15, wanted[number] or {})
            else:
                self._value(kind & 15, {})
        return found

    def _value(self, kind: int, wanted: dict[int, Any]) -> Any:
        """Return a value; of structs and lists of them what is wanted, and of text nothing."""
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            self._skip(self._length())
        elif kind == _STRUCT:
            return self.struct(wanted)
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._length()
            return [self._element(head & 15, wanted) for _ in range(count)]
        elif kind == _DOUBLE:
            self._skip(8)
        elif kind == _BYTE:
            self._skip(1)
        elif kind == _MAP:
            if count := self._length():
                kinds = self._byte()
                for _ in range(count):
                    self._element(kinds >> 4, {})
                    self._element(kinds & 15, {})
        elif kind not in (_TRUE, _FALSE):  # which are in the kind itself
            raise ValueError(kind)
        return None

    def _element(self, kind: int, wanted: dict[int, Any]) -> Any:
        return self._skip(1) if kind in (_TRUE, _FALSE) else self._value(kind, wanted)

    def _byte(self) -> int:
        value = self._content[self._place]
        self._place += 1
        return value

    def _length(self) -> int:
        """Return a whole number that is not negative."""
        value = shift = 0
        while True:
            byte = self._content[self._place]
            self._place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError(shift)

    def _integer(self) -> int:
        value = self._length()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self._place += count
        if self._place > len(self._content):
            raise IndexError(self._place)
