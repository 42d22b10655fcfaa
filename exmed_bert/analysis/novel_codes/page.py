"""report.html, results.json, the tables and the plots of an analysis of novel codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exmed_bert.analysis.novel_codes.plots import DRAWINGS
from exmed_bert.analysis.novel_codes.projector import FOLDER as PROJECTOR
from exmed_bert.analysis.novel_codes.results import NovelResults
from exmed_bert.analysis.novel_codes.summary import lead
from exmed_bert.analysis.novel_codes.tables import write_tables
from exmed_bert.analysis.novel_codes.text import sections
from exmed_bert.reporting.content import Report
from exmed_bert.reporting.folder import report_files
from exmed_bert.reporting.plotting import draw_plots
from exmed_bert.staging import write_json

TITLE = "Novel codes: embeddings and masked-code prediction"


@contextmanager
def novel_report(folder: Path, results: NovelResults) -> Iterator[Path]:
    """Write an analysis, and whatever the block writes to the folder that is yielded: all of it or nothing.

    Raises:
        InputError: the folder cannot be made or written.
    """
    plots = draw_plots(DRAWINGS, results)
    report = Report(TITLE, results.facts, results.notes, sections(results), plots, lead(results))
    with report_files(folder, report, DRAWINGS, whole=[PROJECTOR]) as staged:
        write_json(staged / "results.json", results.to_dict())
        write_tables(staged, results)
        yield staged
