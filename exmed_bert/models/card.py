"""The model card: README.md in a model's folder, in the form of the Hugging Face Hub, with front matter in YAML.

It names no patient and no path. Its license is the owner's to fill in; a later run keeps it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.reporting.markdown import as_text
from exmed_bert.staging import atomic_write

README = "README.md"
_LICENSE = re.compile(r"\A---\n(?:.*\n)*?license:(?P<license>.*)\n")
_PAPER = "https://doi.org/10.1109/JBHI.2023.3288768"

_OF_ALL = (
    "A code that is not in `vocab.json` is `UNK`: the model knows nothing of it.",
    "What holds of the patients it was trained and measured on need not hold elsewhere: measure it on patients of your "
    "own before you rely on it, and never decide about a patient by it alone.",
    "A model can tell something of its training patients: which codes they have, and who was among them. No bound such "
    "as that of differential privacy holds.",
)
_SYNTHETIC = "Its patients are synthetic: what it has learned of diseases are published frequencies, not findings."


@dataclass(frozen=True)
class Metric:
    """A metric for the table and the front matter.

    Attributes:
        name: for people.
        key: for the front matter.
        value: as it is shown.
        interval: its 95 % interval in words, "" without one.
    """

    name: str
    key: str
    value: float
    interval: str = ""


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        title: what the model is.
        task: of the Hub: ``fill-mask`` or ``text-classification``.
        about: sentences.
        data: names and values, counts as far as they may be told.
        vocabulary: of its codes.
        measured_on: what the metrics are of; "" where none were recorded.
        metrics: of the model.
        limits: sentences beside those that hold of all models.
        generated: whether the patients are synthetic.
        example: lines of Python after the model is loaded as ``model``.
    """

    title: str
    task: str
    about: Sequence[str]
    data: Sequence[tuple[str, object]]
    vocabulary: CodeVocabulary
    measured_on: str
    metrics: Sequence[Metric]
    limits: Sequence[str]
    generated: bool
    example: Sequence[str]

    def to_markdown(self, license: str = "") -> str:
        """Return the text of README.md; ``license`` is what stands in the front matter, "" for an empty field."""
        found = "\n".join(_table(("metric", "value", "95 % interval"), self._rows))
        limits = [*([_SYNTHETIC] if self.generated else []), *self.limits, *_OF_ALL]
        systems = [(system, f"{count:,}") for system, count in codes_by_system(self.vocabulary)]
        return "\n\n".join(
            (
                self._front_matter(license),
                as_text(f"# {self.title}"),
                " ".join((*self.about, f"The architecture is ExMed-BERT's ([Lentzen et al., 2023]({_PAPER})).")),
                "## Training data",
                "\n".join(_table(("", ""), [(name, str(value)) for name, value in self.data])),
                "## Vocabulary",
                "\n".join(_table(("code system", "codes"), systems)),
                "## Metrics",
                f"{self.measured_on}\n\n{found}" if self.metrics else self._without_metrics,
                "## Limits",
                "\n".join(as_text(f"- {limit}") for limit in limits),
                "## How to load",
                "\n".join(
                    (
                        "```python",
                        "from exmed_bert import load_model",
                        "",
                        'model = load_model("<this folder>")',
                        *self.example,
                        "```",
                    )
                ),
                "## License",
                "The owner of the model fills in the field `license` at the top.\n",
            )
        )

    @property
    def _without_metrics(self) -> str:
        return "None is shown: too few patients." if self.measured_on else "None was recorded."

    @property
    def _rows(self) -> list[tuple[str, str, str]]:
        return [(metric.name, f"{metric.value:.3f}", metric.interval or "–") for metric in self.metrics]

    def _front_matter(self, license: str) -> str:
        lines = ["---", "library_name: transformers", f"pipeline_tag: {self.task}", f"license:{license}", "tags:"]
        lines += [f"- {tag}" for tag in ("exmed-bert", "medical-codes", "electronic-health-records")]
        lines += ["- synthetic-data"] if self.generated else []
        if self.metrics:
            lines += ["model-index:", f"- name: {json.dumps(self.title)}", "  results:", "  - task:"]
            lines += [f"      type: {self.task}", "    dataset:", "      name: the owner's patients"]
            lines += ["      type: private", "    metrics:"]
            for metric in self.metrics:
                lines += [f"    - type: {metric.key}", f"      name: {json.dumps(metric.name)}"]
                lines += [f"      value: {metric.value:.4g}"]
        return "\n".join([*lines, "---"])


def write_card(folder: Path, card: ModelCard, earlier: Path | None = None) -> None:
    """Write the card into a folder.

    Args:
        folder: of the model, which may be put in place later.
        card: what it says.
        earlier: the folder with an earlier card, whose license is kept.
    """
    with atomic_write(folder / README) as part:
        part.write_text(card.to_markdown(license_of((earlier or folder) / README)), encoding="utf-8")


def copy_card(source: Path, folder: Path, earlier: Path) -> None:
    """Write a model's card into another folder.

    Args:
        source: folder of the model, with a card.
        folder: where it is to stand, which may be put in place later.
        earlier: the folder with an earlier copy, whose license is kept.
    """
    text = (source / README).read_text(encoding="utf-8")
    if license := license_of(earlier / README):
        text = _LICENSE.sub(lambda found: found[0].replace(f"license:{found['license']}", f"license:{license}"), text)
    with atomic_write(folder / README) as part:
        part.write_text(text, encoding="utf-8")


def license_of(path: Path) -> str:
    """Return what stands behind ``license:`` in an earlier card, with the blank before it; "" without one."""
    try:
        found = _LICENSE.match(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    return found["license"].rstrip() if found else ""


def codes_by_system(vocabulary: CodeVocabulary) -> list[tuple[str, int]]:
    """Return the title of each code system of a vocabulary, and how many codes it has there."""
    systems = enumerate(vocabulary.entity_systems)
    counted = [(system.title, int((vocabulary.entities == i).sum())) for i, system in systems if system is not None]
    return [(title, count) for title, count in counted if count]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return as_text("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")

    return [line(header), "|" + " --- |" * len(header), *map(line, rows)]
