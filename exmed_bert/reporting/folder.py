"""Folder of a report: the page, the plots, and whatever belongs to them, all new or all as before."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from exmed_bert.files import staged_files
from exmed_bert.reporting.content import Report
from exmed_bert.reporting.html import html

PAGE = "report.html"


@contextmanager
def report_files(folder: Path, report: Report, plot_names: Collection[str]) -> Iterator[Path]:
    """Write page and plots, and whatever the block writes to the folder that is yielded.

    Until the block ends, an earlier report stays as it is; its plots that are not drawn now are removed.

    Args:
        folder: where the report belongs.
        report: what to write.
        plot_names: of all plots that such a report may have.

    Raises:
        InputError: the folder cannot be made or written.
    """
    page = html(report)
    with staged_files(folder, last=PAGE, obsolete=[f"{name}.png" for name in plot_names]) as staged:
        for name, plot in report.plots.items():
            (staged / f"{name}.png").write_bytes(plot.png)
        (staged / PAGE).write_text(page, encoding="utf-8")
        yield staged
