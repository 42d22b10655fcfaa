"""Dataclasses of counts: added up over parts of an input, and written as plain JSON values.

Their fields are numbers, texts, lists of texts, Counters, dicts of Counters, or such dataclasses themselves.
"""

import dataclasses
from collections import Counter
from typing import Any, TypeVar

C = TypeVar("C")


def add(total: C, part: C) -> None:
    """Add the counts of a part to a total, in place; of texts the total's stays, texts of lists come once.

    >>> from exmed_bert.data.readers.summary import ReadingSummary
    >>> one, other = ReadingSummary("a", repeats=2), ReadingSummary("a", repeats=3)
    >>> add(one, other)
    >>> one.repeats
    5
    """
    for field in dataclasses.fields(total):  # type: ignore[arg-type]
        mine, theirs = getattr(total, field.name), getattr(part, field.name)
        if isinstance(mine, Counter):
            mine.update(theirs)
        elif isinstance(mine, dict):
            for name, counts in theirs.items():
                mine.setdefault(name, Counter()).update(counts)
        elif isinstance(mine, list):
            mine.extend(text for text in theirs if text not in mine)
        elif dataclasses.is_dataclass(mine):
            add(mine, theirs)
        elif isinstance(mine, str):
            setattr(total, field.name, mine or theirs)
        else:
            setattr(total, field.name, mine + theirs)


def to_plain(counts: Any) -> dict[str, Any]:
    """Return plain JSON values; the keys of Counters may be tuples."""
    return {field.name: _plain(getattr(counts, field.name)) for field in dataclasses.fields(counts)}


def from_plain(cls: type[C], content: dict[str, Any]) -> C:
    """Return the counts of which `to_plain` made plain values.

    Raises:
        KeyError, TypeError, ValueError: they are something else.
    """
    counts = cls()
    for field in dataclasses.fields(counts):  # type: ignore[arg-type]
        own, value = getattr(counts, field.name), content[field.name]
        if isinstance(own, Counter):
            value = _counter(value)
        elif isinstance(own, dict):
            value = {name: _counter(of_name) for name, of_name in value.items()}
        elif dataclasses.is_dataclass(own):
            value = from_plain(type(own), value)
        elif type(own) is not type(value):
            raise TypeError(f"{field.name}: {value!r}")
        setattr(counts, field.name, value)
    return counts


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return [[list(key) if isinstance(key, tuple) else key, count] for key, count in value.items()]
    if isinstance(value, dict):
        return {name: _plain(counts) for name, counts in value.items()}
    return to_plain(value) if dataclasses.is_dataclass(value) else value


def _counter(pairs: Any) -> Counter[Any]:
    return Counter({tuple(key) if isinstance(key, list) else key: int(count) for key, count in pairs})
