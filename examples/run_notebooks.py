"""Run the notebooks and keep what they show: every cell in order, as Jupyter would, in a folder of their own.

    python examples/run_notebooks.py                 both
    python examples/run_notebooks.py own_data        one

Lines that begin with ``!python scripts/`` run the step in this process, as the script would.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

COMMAND = re.compile(r"(?m)^!(python scripts/(?:.*\\\n)*.*)$")


def read(name: str) -> dict[str, Any]:
    """Return a notebook."""
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))


def run(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield the cells of code and what each gives, in the current folder."""
    import matplotlib

    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__", "_command": command}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield cell, outputs("".join(cell["source"]), names)


def command(text: str) -> None:
    """Run a step as its script would, and print what it prints on standard output.

    Raises:
        RuntimeError: it fails.
    """
    from typer.testing import CliRunner

    from exmed_bert.cli import script
    from exmed_bert.commands import COMMANDS
    from exmed_bert.startup import SCRIPTS

    _, path, *words = shlex.split(text.replace("\\\n", " "))
    step = next(step for step, file in SCRIPTS.items() if path == f"scripts/{file}")
    result = CliRunner().invoke(script(COMMANDS[step]), words)
    if result.exit_code:
        raise RuntimeError(f"{text}: {result.output}") from result.exception
    print(result.stdout, end="")


def outputs(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell: return what it prints, the value of its last expression, and its figures."""
    from matplotlib import pyplot

    tree = ast.parse(COMMAND.sub(lambda found: f"_command({found[1]!r})", source))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, found = io.StringIO(), []
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(tree, "<cell>", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    if text := printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(text)})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_") and (shown := value._repr_html_()):
            data["text/html"] = lines(shown)
        found.append({"data": data, "metadata": {}, "output_type": "execute_result"})
    for number in pyplot.get_fignums():
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
        data = {"image/png": base64.b64encode(png.getvalue()).decode() + "\n", "text/plain": ["<Figure>"]}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
    pyplot.close("all")
    return found


def lines(text: str) -> list[str]:
    """Return text as notebooks hold it."""
    return text.splitlines(keepends=True)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[None]:
    """Run the block in a folder that has a copy of the example that the notebooks read."""
    shutil.copytree(EXAMPLES / "csv", path / "examples" / "csv")
    with contextlib.chdir(path):
        yield


def main(chosen: list[str]) -> None:
    """Run notebooks and write them with their outputs."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in chosen or ("quickstart", "own_data"):
        notebook = read(name)
        with tempfile.TemporaryDirectory() as place, folder(Path(place)):
            for number, (cell, found) in enumerate(run(notebook), start=1):
                cell["execution_count"], cell["outputs"] = number, found
                for output in found:
                    if output["output_type"] == "execute_result":
                        output["execution_count"] = number
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (EXAMPLES / f"{name}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
