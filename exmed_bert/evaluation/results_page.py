"""results.json, results.md, report.html and the plots of an evaluation."""

from pathlib import Path

from exmed_bert.evaluation import over_time_plots, over_time_text, results_plots, results_text
from exmed_bert.evaluation.over_time_results import OverTimeResults
from exmed_bert.evaluation.results import Results
from exmed_bert.reporting.content import Report
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.reporting.markdown import markdown
from exmed_bert.reporting.plotting import draw_plots
from exmed_bert.staging import write_json

_NAMES = {*results_plots.DRAWINGS, *over_time_plots.DRAWINGS}  # of all plots that such a folder may hold


def write_report(folder: Path, results: Results | OverTimeResults) -> list[Path]:
    """Write an evaluation, all of it or nothing.

    Returns:
        The page, results.md, results.json and the plots.

    Raises:
        InputError: the folder cannot be made or written.
    """
    if isinstance(results, OverTimeResults):
        plots, found = draw_plots(over_time_plots.DRAWINGS, results), over_time_text.sections(results)
        lead, notes = over_time_text.lead(results), over_time_text.notes(results)
    else:
        plots, found = draw_plots(results_plots.DRAWINGS, results), results_text.sections(results)
        lead, notes = results_text.lead(results), results_text.notes(results)
    report = Report(results.title, results.facts, notes, found, plots, lead)
    with report_files(folder, report, _NAMES) as staged:
        write_json(staged / "results.json", results.to_dict())
        (staged / "results.md").write_text(markdown(report), encoding="utf-8")
    return [folder / name for name in (PAGE, "results.md", "results.json", *(f"{name}.png" for name in plots))]
