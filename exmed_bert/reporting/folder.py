"""Folder of a report: the page, the plots, and whatever belongs to them, all new or all as before."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from exmed_bert.reporting.content import Report
from exmed_bert.reporting.html import html
from exmed_bert.staging import staged_files

PAGE = "report.html"


@contextmanager
def report_files(
    folder: Path, report: Report, plot_names: Collection[str], whole: Collection[str] = ()
) -> Iterator[Path]:
    """Write page and plots, and whatever the block writes to the folder that is yielded.

    Until the block ends, an earlier report stays as it is; its plots that are not drawn now are removed.

    Args:
        folder: where the report belongs.
        report: what to write.
        plot_names: of all plots that such a report may have.
        whole: names of folders that the block writes, which replace those of the same name as a whole.

    Raises:
        InputError: the folder cannot be made or written.
    """
    with staged_files(folder, whole=whole, obsolete=plot_files(plot_names)) as staged:
        write_page(staged, report)
        yield staged


def write_page(folder: Path, report: Report) -> None:
    """Write page and plots into a folder that is put in place later.

    Raises:
        OSError: they cannot be written.
    """
    for name, plot in report.plots.items():
        (folder / f"{name}.png").write_bytes(plot.png)
    (folder / PAGE).write_text(html(report), encoding="utf-8")


def plot_files(plot_names: Collection[str]) -> list[str]:
    """Return the names of the files of plots."""
    return [f"{name}.png" for name in plot_names]
