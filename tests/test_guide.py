"""The documents keep their word: each command of the guide runs as printed, and what is shown is what is printed.

The blocks of docs/TRAINING_WITH_SYNTHETIC_DATA.md run as two new users would type them, side by side, each in a copy of
the project: one follows the quick start and the two further examples, which stand by themselves, the other the rest.
Each keeps the order of the guide. The quick start and the small test run are whole; elsewhere the copy's config.yaml
cuts pretraining to one step, while the command stays as printed, but that the production run has fewer patients. The
quick start alone writes to MLflow, whose import takes seconds.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from clinvec_files import write_clinvec_folder
from conftest import ROOT, WITHOUT_MLFLOW
from documents import Block, blocks, name_of, without_figures
from typer.testing import CliRunner

from exmed_bert import ExMedBertForMaskedLM, PatientDataset
from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.config import Resolved
from exmed_bert.data.patient_input import read_patients
from exmed_bert.reporting.plotting import draw_plots
from exmed_bert.settings import GenerateSettings
from exmed_bert.startup import SCRIPTS
from exmed_bert.synthetic import generate

GUIDE = ROOT / "docs" / "TRAINING_WITH_SYNTHETIC_DATA.md"
YOUR_DATA = ROOT / "docs" / "YOUR_DATA.md"
PYTHON = ROOT / "docs" / "PYTHON.md"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "HOW_TO_RUN.md", "SYNTHETIC_DATA_README.md")),
    *(ROOT / "docs" / name for name in ("CLINVEC.md", "FINETUNING.md", "NOVEL_CODES.md", "PYTHON.md")),
    *(GUIDE, YOUR_DATA),
    *sorted((ROOT / "docs" / "your_data").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]

CONVERT = "scripts/convert_synthetic_to_dataset.py"
PRETRAIN = "scripts/pretrain-exmed-bert-clinvec.py"
EXAMPLES = (  # headings of the blocks that the first user follows; all but the last are whole
    *("Step 1: Generate synthetic patients", "Step 2: Convert to PatientDataset format", "Step 3: Run pretraining"),
    *("Small test run (fast)", "Production run"),
)
CUT = {
    **{"max_steps: -1 ": "max_steps: 1 ", "eval_steps: null ": "eval_steps: 100 "},  # the last evaluation always comes
    "baselines: all ": "baselines: logreg ",
}
FEWER = ("-n 10000 ", "-n 1500 ")  # patients of the production run
WITH_MLFLOW = "Step 3: Run pretraining"
WRAPPERS = {f"scripts/{name}" for name in ("train_on_synthetic_data", "run_tests", "setup_environment", "build_docs")}


def kind(block: Block) -> str:
    """Tell what a block of commands is: ``options`` of a script, ``install``, ``server``, ``run``, or ``unknown``."""
    commands = block.commands
    for name, pattern in (
        ("options", r"--?[a-z]"),
        ("install", r"(conda|python -m pip) "),
        ("server", r"(tensorboard|MLFLOW_DISABLE_TELEMETRY=true mlflow ui) "),
        ("run", r"(python scripts/|bash scripts/|cd )"),
    ):
        if commands and all(re.match(pattern, command) for command in commands):
            return name
    return "unknown"


def of_guide(wanted: str) -> list[Block]:
    return [block for block in blocks(GUIDE, "bash") if kind(block) == wanted]


@cache
def help_of(script: str) -> str:
    """Return what --help of a script says."""
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def unknown_flags(script: str, words: list[str]) -> list[str]:
    """Return the flags among the words that the script does not have."""
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of(script)))
    return [word for word in words if word.startswith("-") and word.split("=")[0] not in known]


# --- the guide, run ---


@dataclass
class Session:
    """A new user's session: the copy of the project, and what each block of the guide printed."""

    root: Path
    done: dict[Block, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    @classmethod
    def start(cls, root: Path) -> "Session":
        """Copy the project to ``root``."""
        root.mkdir(parents=True)
        for name in ("scripts", "exmed_bert", "examples"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("config.yaml", "requirements.txt", "environment.yaml"):
            shutil.copy(ROOT / name, root)
        return cls(root)

    def run(self, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run lines of bash in the copy, in an active environment that has the packages: nothing is installed."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=self.root,
            env=os.environ | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": WITHOUT_MLFLOW} | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def cut(self) -> None:
        """Cut every training that is still to come."""
        config = self.root / "config.yaml"
        text = config.read_text()
        for long, short in CUT.items():
            assert text.count(long) == 1, long
            text = text.replace(long, short)
        config.write_text(text)

    def run_block(self, block: Block) -> None:
        """Run a block as printed, but for the places where the reader is to put something in."""
        text = block.text.replace("<project folder>", shlex.quote(str(self.root)))
        text = text.replace("python scripts/...", "python scripts/generate_synthetic_patients.py --help")
        text = re.sub(r"(?m)^([^#\n]*) \.\.\.$", r"\1", text).replace(*FEWER)
        if "--clinvec-dir" in text:
            self.write_clinvec()
        self.done[block] = self.run(text, **({"PYTHONPATH": ""} if block.heading == WITH_MLFLOW else {}))

    def write_clinvec(self) -> None:
        """Put a ClinVec folder beside the project: the dataset's codes that exist, and categories of diagnoses."""
        info = PatientDataset.load(self.root / "pretrain_stuff" / "synthetic_train.pt").info
        listed = [
            (token, key[0])
            for token, key in zip(info.vocabulary.tokens, info.vocabulary.keys, strict=True)
            if key is not None and token not in info.novel_codes
        ]
        icd = {code for code, system in listed if system == "icd10cm"}
        atc = sorted(code for code, system in listed if system == "atc")
        folder = self.root.parent / "ClinVec"
        write_clinvec_folder(folder, {"icd10cm": sorted(icd | {code[:3] for code in icd}), "atc": atc})

    def printed(self, heading: str) -> str:
        """Return the output of the blocks under a heading."""
        found = [done.stdout for block, done in self.done.items() if block.heading == heading]
        assert found, f"no block under the heading {heading!r}"
        return "\n".join(found)

    def results(self) -> dict[str, float]:
        """Return the metrics that the last run left."""
        text = (self.root / "output" / "synthetic_pretrain_data" / "eval_results.txt").read_text()
        return {name: float(value) for name, value in (line.split(" = ") for line in text.splitlines())}


@dataclass
class Sessions:
    """The two users'."""

    examples: Session
    rest: Session

    @property
    def done(self) -> dict[Block, subprocess.CompletedProcess[str]]:
        """What each block printed."""
        return self.examples.done | self.rest.done


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """Run every block of the guide that can be run."""
    folder = tmp_path_factory.mktemp("users")
    examples, rest = Session.start(folder / "one" / "my project"), Session.start(folder / "two" / "my project")

    def run_examples() -> None:
        for heading in EXAMPLES:
            (block,) = [block for block in of_guide("run") if block.heading == heading]
            if heading == EXAMPLES[-1]:
                examples.cut()
            examples.run_block(block)

    def run_rest() -> None:
        rest.cut()
        for block in of_guide("run"):
            if block.heading not in EXAMPLES:
                rest.run_block(block)

    with ThreadPoolExecutor() as pool:
        for user in (pool.submit(run_examples), pool.submit(run_rest)):
            user.result()
    return Sessions(examples, rest)


@pytest.fixture(scope="module")
def session(sessions: Sessions) -> Session:
    """The second user's."""
    return sessions.rest


def test_each_block_of_commands_is_known() -> None:
    found = blocks(GUIDE, "bash")
    assert not [name_of(block) for block in found if kind(block) == "unknown"]
    kinds = {"run": 15, "options": 5, "install": 1, "server": 1}  # counted, so that no block gets lost
    assert Counter(map(kind, found)) == kinds
    other = blocks(GUIDE, "sh", "shell", "console", "powershell", "cmd")
    assert not other, "blocks of commands are marked bash or bat, so that they are tested"


@pytest.mark.slow
@pytest.mark.parametrize("block", of_guide("run"), ids=name_of)
def test_the_guides_commands_run(block: Block, sessions: Sessions) -> None:
    done = sessions.done[block]
    assert done.returncode == 0, done.stdout + done.stderr
    # The production run has more warm-up steps than steps, as the guide says below it.
    warned = [line for line in done.stderr.splitlines() if line.startswith("Warning: --warmup-steps: 10,000 of ")]
    assert len(warned) == (block.heading == "Production run")
    rest = done.stderr.replace("".join(warned), "")
    assert not re.search("error|warning|traceback", rest, re.IGNORECASE), done.stderr


@pytest.mark.parametrize("block", of_guide("options"), ids=name_of)
def test_the_guides_options_exist(block: Block) -> None:
    words = " ".join(block.commands).split()
    assert block.script and not unknown_flags(block.script, words)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for block in of_guide("server") for c in block.commands])
def test_the_guides_viewers_find_what_they_show(command: str, sessions: Sessions) -> None:
    """They stay open until they are stopped, so only their option and what it names are checked."""
    *program, option, where = command.split()
    assert option in sessions.examples.run(f"{' '.join(program)} --help").stdout
    assert (sessions.examples.root / where.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize("block", blocks(GUIDE, "bat"), ids=name_of)
def test_the_windows_commands_are_the_twins_of_those_that_ran(block: Block) -> None:
    above = [other for other in of_guide("run") if other.line < block.line][-1]
    twins = [command.replace("\\", "/").replace(".bat", ".sh") for command in block.commands]
    assert [t if t.startswith("cd ") else f"bash {t}" for t in twins] == above.commands
    scripts = [command.split()[0].replace("\\", "/") for command in block.commands if not command.startswith("cd ")]
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_install_commands_name_what_is_there() -> None:
    (block,) = of_guide("install")
    assert block.commands == [
        "conda env create -f environment.yaml",
        "conda activate exmed-bert",
        "python -m pip install -r requirements.txt",
    ]
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    assert environment["name"] == "exmed-bert"
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    pinned = set(re.findall(r"(?m)^([\w-]+)==[\d.]+$", (ROOT / "requirements.txt").read_text()))
    assert {"torch", "transformers", "typer", "mlflow", "joblib"} <= pinned


# --- what the guide promises about the results ---


def listed_files() -> list[str]:
    """Return the paths of the guide's tree of results."""
    (tree,) = [block for block in blocks(GUIDE, "") if block.heading == "Output files"]
    folders: list[str] = []
    paths = []
    for line in tree.text.splitlines():
        if line.strip():
            name = line.split()[0]
            folders = [*folders[: (len(line) - len(line.lstrip())) // 2], name]
            paths.append("".join(folders))
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("path", listed_files())
def test_every_listed_file_is_there(path: str, sessions: Sessions) -> None:
    user = sessions.examples if path.endswith("mlruns.db") else sessions.rest
    found = list(user.root.glob(path))
    assert found
    assert all(any(file.iterdir()) if path.endswith("/") else file.stat().st_size > 0 for file in found)


def test_the_tree_lists_what_users_look_for() -> None:
    model, data = "output/synthetic_pretrain/", "output/synthetic_pretrain_data/"
    assert {
        "data/synthetic_patients.json",
        *("pretrain_stuff/synthetic_train.pt", "pretrain_stuff/synthetic_val.pt"),
        *(f"{model}{name}" for name in ("pytorch_model.bin", "config.json", "checkpoint-*/", "output.log")),
        *(f"{data}{name}" for name in ("logs/", "eval_results.txt", "mlruns.db")),
    } <= set(listed_files())


@pytest.mark.slow
def test_the_quick_start_trains_a_model_that_beats_guessing(sessions: Sessions) -> None:
    results = sessions.examples.results()
    assert results["train_steps"] == 4120
    assert results["eval_accuracy_top1"] > 3 * results["eval_baseline_entity_top1"]
    model = ExMedBertForMaskedLM.from_pretrained(sessions.examples.root / "output" / "synthetic_pretrain")
    sizes = (model.config.hidden_size, model.config.num_hidden_layers, model.config.num_attention_heads)
    assert sizes == (64, 2, 2) and not model.config.predict_los


@pytest.mark.slow
def test_a_run_with_other_settings_archives_the_old_one(session: Session) -> None:
    printed = session.printed("One-command pipeline")
    assert re.search(r"output/synthetic_pretrain is archived as output/synthetic_pretrain\.\d{8}-\d{6}\b", printed)
    old = ExMedBertForMaskedLM.from_pretrained(min(session.root.glob("output/synthetic_pretrain.2*")))
    assert old.config.max_position_embedding == 51, "the run with 50 codes, which the one with 100 archived"


@pytest.mark.slow
def test_the_lengths_and_masking_that_a_dataset_has_may_be_repeated(session: Session) -> None:
    printed = session.printed("Important: matching configurations")
    assert printed.count("Plan: 1 steps") == 1
    assert "already holds this run" in printed, "--max-seq-length and --dynamic-masking say what is so without them"


@pytest.mark.slow
def test_novel_codes_start_from_an_ancestors_clinvec_vector(session: Session) -> None:
    report = json.loads((session.root / "output" / "with_clinvec" / "clinvec_report.json").read_text())
    own, ancestor, without = (report["start"][how]["codes"] for how in ("own", "ancestor", "none"))
    assert own > 0 and ancestor > 0 and without > 0, "drugs have no vector: only icd10cm was asked for"
    novel = [code for code in report["novel_codes"] if code["system"] == "icd10cm"]
    assert novel and all(code["code"].startswith(code["ancestor"]) for code in novel)


# --- what the documents show ---

# Part of an error line of the documents: script and options that lead to it. own/ is a folder beside the project.
ERRORS = {
    "max_length mismatch": (PRETRAIN, "--max-seq-length 100"),
    "dynamic_masking mismatch": (PRETRAIN, "--no-dynamic-masking"),
    "ClinVec: folder not found": (PRETRAIN, "--use-clinvec --clinvec-dir ../ClinVec"),
    "file not found": (CONVERT, ""),
    "is no date": (CONVERT, "--input data/my_patients.json"),
    "no event has a known code": (CONVERT, "--input examples/synthea/data"),
    "unknown key": ("scripts/generate_synthetic_patients.py", ""),
}
IN_OWN = ("file not found", "is no date", "unknown key")  # run in own/, the last with a config.yaml there
NO_TORCH = "No module named 'torch'"


def shown_errors() -> set[str]:
    """Return the error lines that the documents show."""
    lines = {line for path in DOCUMENTS for block in blocks(path, "text") for line in block.text.splitlines()}
    return {line for line in lines if line.startswith("Error: ")}


def test_every_error_shown_is_tested() -> None:
    parts = [*(part for part in ERRORS if part != "file not found"), "data/synthetic_patients.json: file", NO_TORCH]
    assert shown_errors() and all(sum(part in line for part in parts) == 1 for line in shown_errors())


@pytest.fixture
def own(sessions: Sessions) -> Path:
    """A folder with patients of which one has a wrong date."""
    folder = sessions.examples.root.parent / "own"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (example,) = blocks(YOUR_DATA, "json")
    (folder / "data" / "my_patients.json").write_text(example.text.replace("2023-12-15", "2023-15-12"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("part", ERRORS)
def test_the_errors_shown_are_the_real_ones(
    part: str, sessions: Sessions, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script runs in this process: starting one anew takes seconds."""
    script, options = ERRORS[part]
    monkeypatch.chdir(own if part in IN_OWN else sessions.examples.root)
    (own / "config.yaml").write_text("generate:\n  num_patient: 500\n" if part == "unknown key" else "")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(sys, "argv", [script, *options.split()])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the script sets its own
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line in shown_errors() and part in line


@pytest.mark.slow
def test_a_missing_package_is_the_error_shown(sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = sessions.examples.run(f"python {CONVERT}", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line in shown_errors() and NO_TORCH in line


def test_the_readmes_table_of_errors_quotes_the_programs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([^`]+)` \|", readme[readme.index("## Troubleshooting") :])
    sources = [path for folder in ("exmed_bert", "scripts") for path in (ROOT / folder).rglob("*.[ps][yh]")]
    said = [*shown_errors(), *(path.read_text(encoding="utf-8") for path in sources)]
    patterns = [".*".join(map(re.escape, row.split("..."))).rstrip(" ") for row in rows]
    assert rows and not [p for p in patterns if not any(re.search(p, text) for text in said)]


def output_lines(sessions: Sessions) -> Iterator[tuple[str, bool]]:
    """Yield each line that was printed or that stands in eval_results.txt, and whether it is of training."""
    for done in sessions.done.values():
        training = False
        for line in done.stdout.splitlines():
            if re.match(r"Step [12] of 3", line) or line.startswith(("Synthetic patients", "Converted")):
                training = False
            elif line.startswith(("Model: ", "Step 3 of 3")) or "archived" in line or "already holds" in line:
                training = True
            yield line.strip(), training
    for user in (sessions.examples, sessions.rest):
        yield from ((f"{name} = {value}", True) for name, value in user.results().items())


@pytest.mark.slow
@pytest.mark.parametrize("path", [ROOT / "README.md", GUIDE], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_output_shown_is_the_real_one(path: Path, sessions: Sessions) -> None:
    """Of generating and converting to the letter, of training but for the figures and the model's choice of codes."""
    printed = list(output_lines(sessions))
    exact = {" ".join(line.split()) for line, _ in printed}
    shapes = {without_figures(line) for line, training in printed if training}
    shown = [line.strip() for block in blocks(path, "text") for line in block.text.splitlines()]
    shown = [line for line in shown if line not in ("", "...") and not line.startswith("Error: ")]
    assert shown
    wrong = [line for line in shown if " ".join(line.split()) not in exact and without_figures(line) not in shapes]
    assert not wrong


# --- commands and links of all documents ---

OTHER_COMMANDS = (
    r"python3? --version",
    r"python3? -c .*",
    r"py (-3 )?--version",
    r"(python3?|py -3) -m venv \.venv",
    r"python -m pip install (-r requirements\.txt|\.|\"\.\[onnx\]\")",
    r"source \.venv/bin/activate",
    r"\.venv\\Scripts\\activate",
    r"deactivate",
    r"conda (env create -f environment\.yaml|activate exmed-bert|deactivate|--version)",
    r"cd \S.*",
    r"tensorboard --logdir output/\S+",
    r"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri sqlite:///output/\S+",
    r"sudo apt (update|install (--yes )?python3 python3-venv)",
    r"python -m pytest( tests/\w+\.py)?( -k \w+)?",
    r"python (benchmarks|docs)/\w+\.py",
)


def problem_with(command: str) -> str:
    """Return what is wrong with a command of a document, or an empty string."""
    words = shlex.split(command.replace("\\", "/")) if "scripts" in command else command.split()
    if words[0] in ("torchrun", "accelerate"):
        first = next((i for i, word in enumerate(words) if word.startswith("scripts/")), 0)
        words = ["python", *words[first:]] if first else words
    if words[0] == "exmed-bert" and words[1] in SCRIPTS:
        words = ["python", f"scripts/{SCRIPTS[words[1]]}", *words[2:]]
    if words[0] in ("python", "bash") and len(words) > 1 and words[1].startswith("scripts/"):
        words = words[1:]
    if words[0].endswith(".py") and words[0].startswith("scripts/"):
        if not (ROOT / words[0]).is_file():
            return f"{words[0]} does not exist"
        return " ".join(unknown_flags(words[0], words[1:]))
    if words[0].endswith((".sh", ".bat")):
        known = words[0].rsplit(".", 1)[0] in WRAPPERS and (ROOT / words[0]).is_file()
        return "" if known else f"{words[0]} does not exist"
    return "" if any(re.fullmatch(pattern, command) for pattern in OTHER_COMMANDS) else "is not known to this test"


def commands_of(path: Path) -> list[str]:
    found = [block for block in blocks(path, "bash", "bat") if kind(block) != "options"]
    commands = [command for block in found for command in block.commands]
    return [re.sub(r" \.\.\.$", "", command) for command in commands if command != "python scripts/..."]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_names_scripts_and_flags_that_exist(path: Path) -> None:
    commands = commands_of(path)
    assert commands
    assert not [f"{command}: {problem}" for command in commands if (problem := problem_with(command))]


def test_a_wrong_command_is_noticed() -> None:
    assert problem_with("python scripts/generate_synthetic_patients.py --patients 5") == "--patients"
    assert problem_with("exmed-bert generate --patients 5") == "--patients"
    assert "does not exist" in problem_with("python scripts/generate.py")
    assert "does not exist" in problem_with("bash scripts/train.sh")
    assert "not known" in problem_with("rm -rf data")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them, and those that it names."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    named = re.findall(r'<a id="([\w-]+)"></a>', path.read_text(encoding="utf-8"))
    return {*named, *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert local
    for link in local:
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# --- pictures and examples ---


def test_the_pictures_are_small_and_the_pipeline_is_drawn() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    assert [path.name for path in pictures] == ["pipeline.png", "report.png"]
    assert all(path.stat().st_size < 200_000 for path in pictures)
    script = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    drawn = draw_plots({"pipeline": (script["pipeline"], "the pipeline")}, None)
    assert len(drawn["pipeline"].png) > 10_000


def test_the_patients_shown_are_valid(tmp_path: Path) -> None:
    (example,) = blocks(YOUR_DATA, "json")
    path = tmp_path / "my_patients.json"
    path.write_text(example.text)
    (patients,) = read_patients(path)
    assert len(patients) == 2


def with_output(path: Path) -> list[tuple[Block, Block]]:
    """Return the blocks of Python with the blocks of what they print, in the order of the document."""
    found = blocks(path, "python", "txt")
    return [(code, shown) for code, shown in pairwise(found) if (code.language, shown.language) == ("python", "txt")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "shown"),
    [*with_output(ROOT / "README.md"), *with_output(PYTHON)],
    ids=lambda part: name_of(part),
)
def test_the_python_shown_prints_what_is_shown(
    block: Block, shown: Block, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the letter, but for lines with the figures of a model, which differ between machines."""
    monkeypatch.chdir(sessions.examples.root)
    exec(block.text, {})
    printed, expected = capsys.readouterr().out.splitlines(), shown.text.splitlines()
    assert len(printed) == len(expected), printed
    kin = [line for line in printed if line.lstrip().startswith("E11.")]
    assert 'nearest_codes("E11.9", top=5)[' not in block.text or len(kin) >= 4  # diabetes beside diabetes
    of_model = re.compile(r"\b0\.\d+")
    lines = zip(printed, expected, strict=True)
    assert [line for line, wanted in lines if not of_model.search(wanted)] == [
        wanted for wanted in expected if not of_model.search(wanted)
    ]


# Commands of the README whose output is not shown, by how they begin, and why.
SHOWN_ELSEWHERE = {
    "bash scripts/": "under 'What the demonstration prints', or pytest's",
    "python -m pip install": "pip's, and that of the demonstration",
    "exmed-bert ": "that of the demonstration",
    "tensorboard ": "pages",
    "MLFLOW_DISABLE_TELEMETRY=true mlflow ui ": "pages",
    "python scripts/pretrain-exmed-bert-clinvec.py ": "that of the demonstration",
    "torchrun ": "that of the demonstration",
    "accelerate launch ": "that of the demonstration",
}
# What makes a command of the README as quick as a test may be; lines with what it changes are compared by their shape.
QUICKER = {"finetune": ["--baselines", "logreg", "--epochs", "1"], "convert": ["--min-cell", "0"]}
README_OUTPUT = [
    (code, shown)
    for code, shown in pairwise(blocks(ROOT / "README.md", "bash", "txt", "python"))
    if (code.language, shown.language) == ("bash", "txt")
]


def test_every_command_of_the_readme_has_its_output() -> None:
    with_txt = {code for code, _ in README_OUTPUT}
    missing = [
        command
        for block in blocks(ROOT / "README.md", "bash")
        for command in block.commands
        if block not in with_txt and not command.startswith(tuple(SHOWN_ELSEWHERE))
    ]
    assert len(with_txt) == 6 and not missing


@pytest.fixture(scope="module")
def demonstration(sessions: Sessions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the demonstration leaves it."""
    folder = tmp_path_factory.mktemp("demonstration")
    (folder / "output").mkdir()
    model = "output/synthetic_pretrain"
    (folder / model).symlink_to(sessions.examples.root / model)
    for name in ("pretrain_stuff", "examples"):
        shutil.copytree(sessions.examples.root / name, folder / name)
    generate.run(Resolved(GenerateSettings(num_patients=1000, output=folder / "data" / "synthetic_patients.json"), {}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "shown"),
    [(block, shown) for block, shown in README_OUTPUT if "analyze" not in block.text],  # tests/test_novel_codes.py
    ids=lambda part: name_of(part),
)
def test_the_readmes_commands_print_what_is_shown(
    block: Block, shown: Block, sessions: Sessions, demonstration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the letter but for the figures of a model, in their order. What the guide runs is not run again."""
    of_guide = [done.stdout for other, done in sessions.done.items() if other.commands == block.commands]
    if of_guide:
        output = of_guide[0]
    else:
        monkeypatch.chdir(demonstration)
        path, *options = shlex.split(block.commands[0])[1:]
        name = next(name for name, file in SCRIPTS.items() if path == f"scripts/{file}")
        options += ["--config", str(ROOT / "config.yaml"), *QUICKER.get(name, [])]
        result = CliRunner().invoke(script(COMMANDS[name]), options)
        assert result.exit_code == 0, result.output
        output = result.stdout
    printed = [" ".join(line.split()) for line in output.splitlines()]
    shapes = set(map(without_figures, printed))
    expected = [" ".join(line.split()) for line in shown.text.splitlines() if line.strip() != "..."]
    wrong = [line for line in expected if line not in printed and "AUROC" not in line]
    wrong += [line for line in expected if "AUROC" in line and without_figures(line) not in shapes]
    assert not wrong, output


def test_all_python_of_the_page_has_its_output() -> None:
    assert len(with_output(PYTHON)) == len(blocks(PYTHON, "python")) > 4


@pytest.mark.slow
@pytest.mark.parametrize("block", [*blocks(ROOT / "README.md", "python"), *blocks(YOUR_DATA, "python")], ids=name_of)
def test_the_python_shown_runs(
    block: Block, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(session.root)
    exec(block.text, {})
    assert capsys.readouterr().out
