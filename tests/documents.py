"""The fenced blocks of the documents, and lines of output without their figures."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    heading: str  # the nearest above
    script: str  # the Python script named last above it, "" when there is none
    line: int

    @property
    def commands(self) -> list[str]:
        """The lines without comments, continued lines joined."""
        joined = re.sub(r" *[\\^]\n\s*", " ", self.text)
        lines = [re.sub(r"(^|\s+)(#|rem ).*", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line]


def blocks(path: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a document in their order, indented ones included."""
    found, heading, script, fence = [], "", "", None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if fence is not None:
            if stripped == "```":
                found.append(Block(fence[0], "\n".join(fence[2]), heading, script, fence[1]))
                fence = None
            else:
                fence[2].append(line[fence[3] :])
        elif stripped.startswith("```"):
            fence = (stripped[3:], number, [], len(line) - len(line.lstrip()))
        elif line.startswith("#"):
            heading = line.lstrip("# ")
        elif named := re.findall(r"scripts/[\w-]+\.py", line):
            script = named[-1]
    assert fence is None, f"{path.name}: the block at line {fence[1]} has no end"
    return [block for block in found if block.language in languages]


def name_of(block: Block) -> str:
    return f"line {block.line}: {block.heading}"


def without_figures(line: str) -> str:
    """Return a line with every number as #, since accuracies and times differ between machines.

    So do the codes that a model guesses, what it guesses them for, and what it puts next to another.

    >>> without_figures("step 206 of 4,120 (epoch 0.5): loss 4.801")
    'step # of # (epoch #): loss #'
    >>> without_figures("  cosine 0.80  C10AA07 rosuvastatin"), without_figures("guess, 7%  I10 Hypertension, correct")
    ('cosine', 'guess')
    """
    if found := re.match(
        r"\s*(guess(?=, <?\d)|cosine(?= \S+  )|visit(?= \d+, masked )|patient(?= of \d+ codes  ))", line
    ):
        return found[1]
    return " ".join(re.sub(r"\d[\d,.]*", "#", line).split())
