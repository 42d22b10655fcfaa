"""Codes that occur too rarely to be learned: what stands for them."""

from collections import Counter
from collections.abc import Mapping

from exmed_bert.codes import CodeKey, ancestors, parent


def stand_ins(counts: Mapping[CodeKey, int], least: int, roll_up: bool) -> dict[CodeKey, CodeKey | None]:
    """Return what stands for each code that occurs fewer than ``least`` times: an ancestor, or None for UNK.

    Rolled up, a rare code counts for its parent, together with the parent's own events and those of its other rare
    children; what is still rare goes on to the next level. So the nearest ancestor that is frequent enough stands for
    a code, and none where even the top is rare, or where the system is flat.

    Args:
        counts: events of each code.
        least: as many are enough.
        roll_up: whether ancestors stand for rare codes; if not, it is UNK.

    >>> counts = {("icd10cm", "E11.9"): 50, ("icd10cm", "E11.65"): 2, ("icd10cm", "E11.69"): 3, ("atc", "A10BA02"): 1}
    >>> stand_ins(counts, 5, roll_up=True) == {
    ...     ("icd10cm", "E11.65"): ("icd10cm", "E11.6"), ("icd10cm", "E11.69"): ("icd10cm", "E11.6"),
    ...     ("atc", "A10BA02"): None}
    True
    """
    rare = [key for key, count in counts.items() if count < least]
    if not roll_up:
        return dict.fromkeys(rare)
    depth = {key: len(ancestors(key[1], key[0])) for key in counts}
    total = Counter(counts)
    above: dict[CodeKey, CodeKey | None] = {}  # of each code that is rare, what it was counted for
    for level in range(max(depth.values(), default=0), -1, -1):
        for system, code in sorted(key for key, own in depth.items() if own == level and total[key] < least):
            higher = parent(code, system)
            above[system, code] = None if higher is None else (system, higher)
            if higher is not None:
                total[system, higher] += total[system, code]
                depth.setdefault((system, higher), level - 1)

    def stand_in(key: CodeKey) -> CodeKey | None:
        found: CodeKey | None = key
        while found in above:
            found = above[found]
        return found

    return {key: stand_in(key) for key in rare}
