"""Keys that stand twice in a JSON record, of which only the last is read."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any


def duplicate_keys(content: bytes, records: Sequence[Any], fields: Collection[str]) -> Counter[str]:
    """Return how often a key stands once more than its object can hold, by key.

    Records without any are told by the number of keys, which the text has as often as the records; only others are
    looked at field by field, and parsed a second time where that does not tell either.

    Args:
        content: the records as JSON, or several of them, a line each.
        records: what they were parsed to.
        fields: of a record, those that are read.

    >>> duplicate_keys(b'[{"sex": "F", "sex": "M"}]', [{"sex": "M"}], ["sex"])
    Counter({'sex': 1})
    >>> duplicate_keys(b'[{"sex": "sex"}]', [{"sex": "sex"}], ["sex"])
    Counter()
    """
    found: Counter[str] = Counter()
    if content.count(b'":') == sum(map(_keys, records)):
        return found
    held: Counter[str] = Counter()
    for record in records:
        if isinstance(record, dict):
            held.update(record.keys())
    if all(content.count(f'"{field}"'.encode()) == held[field] for field in fields):
        return found

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        as_dict = dict(pairs)
        if len(as_dict) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            found.update({key: count - 1 for key, count in counts.items() if count > 1})
        return as_dict

    with suppress(ValueError, RecursionError):  # of what orjson takes and this parser does not
        json.loads(content, object_pairs_hook=note)
    return found


def _keys(record: Any) -> int:
    """Return the number of a record's keys, those of its events included."""
    if type(record) is not dict:
        return 0
    events = record.get("events")
    return len(record) + (sum(len(event) for event in events if type(event) is dict) if type(events) is list else 0)
