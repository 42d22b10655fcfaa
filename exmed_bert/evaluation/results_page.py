"""results.json, results.md, report.html and the plots of an evaluation."""

from pathlib import Path

from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.results_plots import DRAWINGS
from exmed_bert.evaluation.results_text import sections
from exmed_bert.reporting.content import Report
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.reporting.markdown import markdown
from exmed_bert.reporting.plotting import draw_plots
from exmed_bert.staging import write_json


def write_report(folder: Path, results: Results) -> list[Path]:
    """Write an evaluation, all of it or nothing.

    Returns:
        The page, results.md, results.json and the plots.

    Raises:
        InputError: the folder cannot be made or written.
    """
    plots = draw_plots(DRAWINGS, results)
    report = Report(results.title, results.facts, results.notes, sections(results), plots)
    with report_files(folder, report, DRAWINGS) as staged:
        write_json(staged / "results.json", results.to_dict())
        (staged / "results.md").write_text(markdown(report), encoding="utf-8")
    return [folder / name for name in (PAGE, "results.md", "results.json", *(f"{name}.png" for name in plots))]
