"""Make the pictures of the README: the pipeline, drawn, and the report of fine-tuning, as a browser shows it.

    python docs/make_pictures.py

The report is that of the README's commands, `bash scripts/train_on_synthetic_data.sh` and
`python scripts/finetune-exmed-bert.py --task plos`; --report names another. For it Chromium or Chrome has to be
installed (Debian: `apt-get install chromium`); without either the pipeline alone is drawn.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from exmed_bert.reporting.plotting import BLUE, INK, ORANGE, draw_plots  # noqa: E402
from exmed_bert.staging import atomic_write  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WINDOW = 1000, 838  # pixels of the report that are shown
_PALE, _GREY = "#eaf1f6", "#8a8f98"

STEPS = (  # what comes out of each step, and the command that makes it
    ("patients", "your records, or synthetic\nones (generate)", ""),
    ("datasets", "training and validation,\none vocabulary", "convert"),
    ("model", "BERT over codes, visits,\nages and static columns", "pretrain"),
    ("report", "outcome predictions beside\nbaselines, with intervals", "finetune"),
)
VISITS = (  # of one patient: date, age, codes as the model sees them
    ("2022-03-15", 57, ("I10", "E11.9")),
    ("2022-03-20", 57, ("C10AA05", "MASK")),
    ("2023-12-15", 58, ("E11.9",)),
)
MASKED, PREDICTED = "MASK", "A10BA02"


def pipeline(_: None) -> Figure:
    """Return the steps from records to a report, above what the model sees of one patient."""
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.3, 100.3), ylim=(4, 41))
    axes.set_axis_off()
    width, gap = 19.0, 8.0
    for number, (title, text, command) in enumerate(STEPS):
        left = number * (width + gap)
        _box(axes, left, 28, width, 12, _PALE, BLUE)
        axes.text(left + width / 2, 36.6, title, ha="center", va="center", color=INK, weight="bold", size=11.5)
        axes.text(left + width / 2, 31.7, text, ha="center", va="center", color="#444444", size=9)
        if command:
            _arrow(axes, (left - gap + 0.6, 34), (left - 0.6, 34))
            axes.text(left - gap / 2, 35.3, command, ha="center", color=BLUE, size=9.5, weight="bold")

    axes.text(0, 21.6, "One patient as the model sees it", color=INK, weight="bold", size=10.5)
    axes.text(0, 18.2, "static columns", color=_GREY, size=9)
    for row, value in enumerate(("FEMALE", "CA")):
        _token(axes, 0, 11.6 - 5.2 * row, value)
    left = 14.0
    for number, (day, age, codes) in enumerate(VISITS, start=1):
        axes.text(left, 18.2, f"visit {number}: {day}, age {age}", color=_GREY, size=9)
        for row, code in enumerate(codes):
            _token(axes, left, 11.6 - 5.2 * row, code, masked=code == MASKED)
            if code == MASKED:
                masked_at = left + 11, 11.6 - 5.2 * row + 2
        left += 22.0
    axes.annotate(
        f"masked-code prediction: {PREDICTED}",
        xy=masked_at,
        xytext=(masked_at[0] + 12, masked_at[1]),
        va="center",
        color=ORANGE,
        size=10,
        weight="bold",
        arrowprops={"arrowstyle": "<|-", "color": ORANGE, "lw": 1.5},
    )
    return figure


def screenshot(report: Path, browser: str) -> bytes:
    """Return the top of a report as a PNG with a palette of its own, which is a third of the size.

    Raises:
        subprocess.CalledProcessError: the browser failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.png"
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WINDOW[0]},{WINDOW[1]}"]
        subprocess.run(
            [*command, f"--screenshot={path}", report.resolve().as_uri()], check=True, capture_output=True, timeout=120
        )
        content = io.BytesIO()
        Image.open(path).convert("RGB").quantize(64).save(content, format="png", optimize=True)
    return content.getvalue()


def main() -> None:
    """Write both pictures to docs/pictures/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "output" / "finetune" / "report.html")
    report = parser.parse_args().report
    drawn = draw_plots({"pipeline": (pipeline, "the pipeline")}, None)
    _write("pipeline.png", drawn["pipeline"].png)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"Error: none of {', '.join(BROWSERS)} is installed: no picture of the report")
    if not report.is_file():
        sys.exit(f"Error: {report}: file not found; make it with: python scripts/finetune-exmed-bert.py --task plos")
    _write("report.png", screenshot(report, browser))


def _write(name: str, content: bytes) -> None:
    with atomic_write(PICTURES / name) as staged:
        staged.write_bytes(content)
    print(f"docs/pictures/{name}: {len(content) / 1000:.0f} kB")


def _box(axes: Axes, left: float, bottom: float, width: float, height: float, face: str, edge: str) -> None:
    style = "round,pad=0,rounding_size=1.2"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=face, ec=edge, lw=1.2))


def _token(axes: Axes, left: float, bottom: float, text: str, masked: bool = False) -> None:
    _box(axes, left, bottom, 11, 4, "#fdf1e3" if masked else "white", ORANGE if masked else _GREY)
    axes.text(left + 5.5, bottom + 1.9, text, ha="center", va="center", color=ORANGE if masked else INK, size=9.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.8})


if __name__ == "__main__":
    main()
