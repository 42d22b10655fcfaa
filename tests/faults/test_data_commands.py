"""What stands after a failure of each command that prepares data or reports on it."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_novel_codes import made_results, tree_codes

from exmed_bert import config
from exmed_bert.analysis.novel_codes import analyze
from exmed_bert.analysis.novel_codes import page as novel_page
from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.clinvec import hierarchy
from exmed_bert.codes import ATC, ICD10CM
from exmed_bert.config import Resolved
from exmed_bert.data import conversion_page, convert
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.writers import Piece
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.reporting.content import Plot
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import AnalyzeSettings, ConvertSettings, GenerateSettings, HierarchySettings, ReportSettings
from exmed_bert.synthetic import generate, population_file, shards
from exmed_bert.synthetic.population import Block, generate_blocks
from exmed_bert.synthetic.population_file import generate_pieces
from exmed_bert.synthetic.report import report
from exmed_bert.synthetic.summary import Summary
from faults.shim import Command, check_errors, check_kills, check_sizes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks Linux for the names of open files"),
]

PATIENTS = 16
Runs = tuple[Callable[[int], Any], list[str]]
"""A function that runs a command, with another result for 1 and for 2, and what it writes that others open."""


def generated(output: Path, seed: int, **changes: Any) -> Path:
    """Generate a few patients; the same are drawn once."""
    settings = GenerateSettings(output=output, num_patients=PATIENTS, seed=seed).model_copy(update=changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population_file, "generate_pieces", lambda settings: pieces(seed))
        patch.setattr(shards, "generate_blocks", lambda settings, numbers: blocks(seed))
        generate.run(Resolved(settings, {}))
    return output


@cache
def pieces(seed: int) -> list[tuple[Piece, Summary]]:
    return list(generate_pieces(GenerateSettings(num_patients=PATIENTS, seed=seed)))


@cache
def blocks(seed: int) -> list[Block]:
    return list(generate_blocks(GenerateSettings(num_patients=PATIENTS, seed=seed), range(1)))


def plots(names: Any, seed: int) -> dict[str, Plot]:
    """Return what stands for plots, which take long: two, of which the second run makes one."""
    return {name: Plot(f"{name} {seed}".encode(), name) for name in list(names)[seed - 1 : 2]}


def generation(root: Path) -> Runs:
    return lambda seed: generated(root / "p.json", seed), ["p.json"]


def generation_of_shards(root: Path) -> Runs:
    return lambda seed: generated(root / "out", seed, shards=2, num_patients=1001), ["out"]


def conversion(root: Path, **changes: Any) -> Runs:
    settings = ConvertSettings(input=generated(root / "p.json", 1), output=root / "d.pt", train_ratio=0.5)

    def run(seed: int) -> None:
        settings_of_seed = settings.model_copy(update={"seed": seed} | changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conversion_page, "draw_plots", lambda drawings, results: plots(drawings, seed))
            convert.run(Resolved(settings_of_seed, {}))

    return run, ["d_train.pt", "d_conversion"]


def conversion_to_shards(root: Path) -> Runs:
    records = json.loads(generated(root / "p.json", 1).read_text())
    for name, of_file in (("a.json", records[::2]), ("b.json", records[1::2])):
        (root / name).write_text(json.dumps(of_file))
    return conversion(root, input=(root / "a.json", root / "b.json"), shard_size=1, split="train")


def export(root: Path) -> Runs:
    sources = [generated(root / f"p{seed}.json", seed) for seed in (1, 2)]

    def run(seed: int) -> None:
        settings = ConvertSettings(input=sources[seed - 1], output=root / "out", export="meds")
        convert.run(Resolved(settings, {}))

    return run, ["out"]


def reporting(root: Path) -> Runs:
    sources = [generated(root / f"p{seed}.json", seed) for seed in (1, 2)]
    found = [report.count(PatientInput([source])) for source in sources]
    compared = [report.COMPARISONS[0](findings) for findings in found]

    def run(seed: int) -> None:
        settings = ReportSettings(input=sources[seed - 1], output_dir=root / "out")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "count", lambda source: found[seed - 1])
            patch.setattr(report, "COMPARISONS", [lambda findings: compared[seed - 1]])
            patch.setattr(report, "draw", lambda comparisons: plots(report.DRAWINGS, seed))
            report.run(Resolved(settings, {}))

    return run, ["out"]


def hierarchy_embeddings(root: Path) -> Runs:
    keys = [(ICD10CM, "I10"), (ATC, "C10AA05"), (ICD10CM, "E11"), (ATC, "A10BA02")]

    def run(seed: int) -> None:
        vectors = np.random.default_rng(seed).random((4, 3)).astype(np.float32)
        held_out = np.array([False, False, True, True])
        made = hierarchy.HierarchyEmbeddings(keys, [code for _, code in keys], vectors, held_out)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hierarchy, "make", lambda *_: made)
            hierarchy.run(Resolved(HierarchySettings(output_dir=root / "out", seed=seed), {}))

    return run, ["out", "out/held_out"]


def analysis(root: Path) -> Runs:
    families = CodeFamilies(tree_codes()[:30])
    results = [made_results(families, Estimate(0.5), Estimate(0.3), change) for change in (0.0, 0.1)]

    def run(seed: int) -> None:
        content = {"after_training": np.full((2, 3), seed)}, ["code", "novel"], [["I10", "no"], ["E11.95", "yes"]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(analyze, "load", lambda settings: SimpleNamespace(cells=MinCell(0)))
            patch.setattr(analyze, "analyze", lambda inputs, settings: results[seed - 1])
            patch.setattr(analyze, "_projector_content", lambda inputs, results: content)
            patch.setattr(novel_page, "draw_plots", lambda drawings, results: plots(drawings, seed))
            analyze.run(Resolved(AnalyzeSettings(output_dir=root / "out", seed=seed), {}))

    return run, ["out"]


@pytest.fixture(autouse=True)
def quick(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Print to nowhere, and look for no versions of packages."""
    monkeypatch.setattr(config, "_version", lambda name: "1.0")


@pytest.mark.parametrize(
    "command",
    [
        generation,
        generation_of_shards,
        conversion,
        conversion_to_shards,
        export,
        reporting,
        hierarchy_embeddings,
        analysis,
    ],
)
def test_each_point(command: Callable[[Path], Runs], root: Path) -> None:
    run, targets = command(root)
    run(1)
    passed_over = r"converting/\.?part-" if command is conversion_to_shards else "(?!)"
    tested = Command(root, lambda: run(2), [root / name for name in targets], "tfevents", passed_over)
    check_errors(tested)
    check_kills(tested)
    check_sizes(tested)
