"""Small cells: counts of so few patients that they could point to a person, and what would give such a count away.

A count under the limit is hidden: all that is told of it is the range from 1 to the limit. Nothing else in a report may
narrow this range, so whatever is computed from counts is computed from their ranges: the total of a table in which a
count is hidden is a range itself; where the total has to be told, one more of its parts is the range that the others
leave. A report in which nothing is hidden shows every number as it is.

Zero is shown as it is. Shares follow the middle of a range, which is known to every reader.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, overload

K = TypeVar("K", bound=Any)

DEFAULT_LIMIT = 11  # the rule of the Centers for Medicare & Medicaid Services: no cell of 1 to 10 persons


@dataclass(frozen=True, order=True)
class Count:
    """A count as far as a report may tell it: the least and the most that it can be.

    >>> one, hidden = Count(1200, 1200), Count(1, 10)
    >>> str(one), str(hidden), str(one + hidden), str(one - hidden)
    ('1,200', '<11', '1,201 to 1,210', '1,190 to 1,199')
    """

    low: int
    high: int

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:,}"
        return f"<{self.high + 1:,}" if self.is_hidden else f"{self.low:,} to {self.high:,}"

    def __format__(self, spec: str) -> str:
        return str(self)

    def __float__(self) -> float:
        return self.middle

    def __add__(self, other: "Count") -> "Count":
        return Count(self.low + other.low, self.high + other.high)

    def __sub__(self, other: "Count") -> "Count":
        return Count(max(self.low - other.high, 0), max(self.high - other.low, 0))

    @property
    def is_exact(self) -> bool:
        """Whether it is told in full."""
        return self.low == self.high

    @property
    def is_hidden(self) -> bool:
        """Whether nothing is told but that it is under the limit."""
        return self.low == 1 and not self.is_exact

    @property
    def middle(self) -> float:
        """The middle of its range."""
        return (self.low + self.high) / 2

    @property
    def value(self) -> int | str:
        """What a JSON or CSV file holds: the number where it is told in full, else the text that a page shows."""
        return self.low if self.is_exact else str(self)

    @property
    def plain(self) -> "Counted":
        """The number where it is told in full."""
        return self.low if self.is_exact else self


NONE = Count(0, 0)
Counted = int | Count


def as_count(number: Counted) -> Count:
    """Return a number as a `Count`."""
    return number if isinstance(number, Count) else Count(int(number), int(number))


def number_of(number: Counted) -> int:
    """Return a number that is told in full, of a range its middle."""
    return int(as_count(number).middle)


def plain_json(value: Any) -> Any:
    """Return dataclasses, lists and dicts as JSON holds them, with what is told of a count in its place.

    >>> plain_json({"patients": [Count(1, 10), Count(7, 7)], "name": "a"})
    {'patients': ['<11', 7], 'name': 'a'}
    """
    if isinstance(value, Count):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class MinCell:
    """The rule for a report: counts from 1 up to, not including, the limit are hidden; a limit of 0 hides none.

    >>> cells = MinCell(11)
    >>> [cells.show(n) for n in (0, 1, 10, 11, 1234)]
    ['0', '<11', '<11', '11', '1,234']
    >>> cells.show(None), MinCell(0).show(3)
    ('–', '3')
    """

    limit: int = DEFAULT_LIMIT

    @property
    def note(self) -> str:
        """What a reader has to know of a page with hidden counts."""
        return (
            f"Counts from 1 to {self.limit - 1} are hidden (<{self.limit}). A total that would give one away is shown "
            "as a range, and so few are not drawn."
        )

    def hides(self, *counts: int | float | None) -> bool:
        """Return whether any of these counts is hidden.

        >>> MinCell(11).hides(12, 3), MinCell(11).hides(12, 0, None), MinCell(0).hides(3)
        (True, False, False)
        """
        return any(count is not None and 0 < count < self.limit for count in counts)

    def count(self, count: int) -> Count:
        """Return a count as far as it may be told."""
        return Count(1, self.limit - 1) if self.hides(count) else Count(int(count), int(count))

    def show(self, count: int | None) -> str:
        """Return a count as a reader sees it."""
        return "–" if count is None else str(self.count(count))

    @overload
    def value(self, count: int) -> int | str: ...
    @overload
    def value(self, count: None) -> None: ...
    def value(self, count: int | None) -> int | str | None:
        """Return a count as JSON and CSV files hold it: the number, or ``"<11"``."""
        return None if count is None else self.count(count).value

    def total(self, counts: Iterable[int]) -> Count:
        """Return the sum of counts that are shown beside it, which tells no more than they do.

        >>> str(MinCell(11).total([1000, 250])), str(MinCell(11).total([1000, 250, 3]))
        ('1,250', '1,251 to 1,260')
        """
        return sum(map(self.count, counts), NONE)

    def parts(self, counts: Sequence[int], total: Count | None = None, open_: int | None = None) -> list[Count]:
        """Return counts whose total stands beside them: where one is hidden, one more is told as what the others leave.

        That is the smallest of those that could be told in full, which costs the reader the least. So is one where the
        total is a range, which all of its parts in full would give away.

        Args:
            counts: of the parts.
            total: as it is shown; not given: their sum.
            open_: the part to tell so, unless it is hidden; not given: the smallest.

        >>> cells = MinCell(11)
        >>> [str(part) for part in cells.parts([100, 40, 3])], [str(part) for part in cells.parts([100, 40])]
        (['100', '33 to 42', '<11'], ['100', '40'])
        >>> [str(part) for part in cells.parts([100, 40], Count(135, 144))]
        ['100', '35 to 44']
        """
        found = [self.count(count) for count in counts]
        whole = self.count(sum(counts)) if total is None else total
        if not whole.is_hidden and (self.hides(*counts) or not whole.is_exact):
            told = [i for i, count in enumerate(counts) if count and not self.hides(count)]
            if open_ not in told:
                open_ = min(told, key=counts.__getitem__) if told else max(range(len(counts)), key=counts.__getitem__)
            found[open_] = whole - sum((part for i, part in enumerate(found) if i != open_), NONE)
        return found

    def drawn(self, count: int) -> int:
        """Return the length of a bar: none for few, else to a multiple of the limit, so that it tells no other's.

        >>> [MinCell(11).drawn(n) for n in (3, 11, 40)], MinCell(0).drawn(3)
        ([0, 11, 44], 3)
        """
        if self.hides(count):
            return 0
        return round(count / self.limit) * self.limit if self.limit else count

    def ranked(self, counts: Mapping[K, int]) -> list[tuple[K, int]]:
        """Return counts with the largest first; the order of the hidden ones, at the end, is that of their keys.

        >>> MinCell(11).ranked({"c": 2, "b": 30, "a": 1, "d": 40})
        [('d', 40), ('b', 30), ('a', 1), ('c', 2)]
        """
        return sorted(counts.items(), key=lambda item: (0 if self.hides(item[1]) else -item[1], item[0]))


ALL = MinCell(0)


def percent(part: Counted, whole: Counted) -> str:
    """Return a share in percent, of a hidden count its bound; the middle of a range stands for a total.

    >>> percent(Count(1, 1), Count(8, 8)), percent(Count(95, 95), Count(96, 105)), percent(NONE, NONE)
    ('12.5 %', '94.5 %', '–')
    >>> percent(Count(1, 10), Count(400, 400)), percent(Count(1, 10), Count(1, 10))
    ('<2.8 %', '–')
    """
    part, whole = as_count(part), as_count(whole)
    if not whole.middle or whole.is_hidden:
        return "–"
    if part.is_hidden:
        return f"<{100 * (part.high + 1) / whole.middle:.1f} %"
    return f"{100 * part.middle / whole.middle:.1f} %"
