"""Settings: precedence, refusals, and the shipped config.yaml."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from conftest import ROOT, assert_one_line_error, run_script
from typer.testing import CliRunner

import exmed_bert
from exmed_bert.cli import console_command, script
from exmed_bert.commands import COMMANDS
from exmed_bert.config import default_config, resolve
from exmed_bert.console import InputError, OptionError
from exmed_bert.settings import (
    SECTIONS,
    ClinVecSettings,
    ConvertSettings,
    GenerateSettings,
    PretrainSettings,
    StepSettings,
    flag,
)
from exmed_bert.startup import SCRIPTS, prepare

STEPS: dict[str, type[StepSettings]] = {
    SCRIPTS[name]: resolve_name(command.settings) for name, command in COMMANDS.items()
}


def config(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_command_line_over_file_over_default(tmp_path: Path) -> None:
    path = config(tmp_path, "max_length: 80\ngenerate: {num_patients: 7, novel_prob: 0.5}\n")
    resolved = resolve(GenerateSettings, {"num_patients": 3}, path)
    assert (resolved.settings.num_patients, resolved.settings.novel_prob, resolved.settings.seed) == (3, 0.5, 42)
    assert [resolved.origin[name] for name in ("num_patients", "novel_prob", "seed")] == ["flag", "file", "default"]


def test_shared_keys_feed_both_steps(tmp_path: Path) -> None:
    path = config(tmp_path, "max_length: 80\ndynamic_masking: false\n")
    assert resolve(ConvertSettings, {}, path).settings.max_length == 80
    pretrain = resolve(PretrainSettings, {}, path)
    assert (pretrain.settings.max_seq_length, pretrain.settings.dynamic_masking) == (80, False)
    assert pretrain.origin["max_seq_length"] == "file"


def test_the_clinvec_section_belongs_to_pretraining(tmp_path: Path) -> None:
    path = config(tmp_path, "clinvec: {use_clinvec: true, clinvec_dir: ../ClinVec}\n")
    settings = resolve(PretrainSettings, {}, path).settings
    assert settings.use_clinvec and settings.clinvec_dir == Path("../ClinVec")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("generate: {num_patient: 3}", ["generate.num_patient", "did you mean 'num_patients'"]),
        ("zzz: 1", ["zzz", "unknown key", "max_length", "pretrain"]),
        ("generate: {num_patients: many}", ["generate.num_patients", "'many'", "integer"]),
        ("generate: {num_patients: '3'}", ["generate.num_patients", "'3'"]),
        ("generate: {num_patients: 0}", ["generate.num_patients", "0", "greater than or equal to 1"]),
        ("generate: {novel_prob: 1.5}", ["generate.novel_prob", "1.5", "less than or equal to 1"]),
        ("generate: {end_date: soon}", ["generate.end_date", "'soon'", "YYYY-MM-DD"]),
        ("generate: {end_date: 1890-01-01}", ["generate.end_date", "1960"]),
        ("pretrain: {initialization: zeros}", ["pretrain.initialization", "'zeros'", "'orthogonal'", "'normal'"]),
        ("clinvec: {vocab_types: 10}", ["clinvec.vocab_types", "10", "string"]),
        ("convert: {max_length: 10}", ["convert.max_length", "stands once", "at the top"]),
        ("max_length: 1", ["max_length", "1", "greater than or equal to 2"]),
        ("dynamic_masking: 'yes'", ["dynamic_masking", "'yes'", "boolean"]),
        ("generate: 5", ["generate", "5"]),
        ("- a", ["list"]),
        ("a: [", ["not YAML"]),
    ],
)
@pytest.mark.parametrize("cls", [GenerateSettings, PretrainSettings])
def test_a_wrong_file_is_refused_by_every_step(cls: type, text: str, parts: list[str], tmp_path: Path) -> None:
    path = config(tmp_path, text)
    with pytest.raises(InputError) as error:
        resolve(cls, {}, path)
    assert error.value.exit_code == 1 and str(path) in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_wrong_option_is_named_as_typed(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--masked-lm-prob: 1\.0 is not allowed") as error:
        resolve(ConvertSettings, {"masked_lm_prob": 1.0}, config(tmp_path, ""))
    assert error.value.exit_code == 2


def test_a_missing_file_is_refused_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="not found"):
        resolve(GenerateSettings, {}, tmp_path / "none.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("exmed_bert.config.PACKAGE", tmp_path / "site-packages" / "exmed_bert")
    resolved = resolve(GenerateSettings, {})
    assert resolved.settings == GenerateSettings() and resolved.config is None


def test_the_current_folders_file_is_read_before_that_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_config() == ROOT / "config.yaml"
    (tmp_path / "config.yaml").write_text("generate: {seed: 9}\n")
    resolved = resolve(GenerateSettings, {})
    assert resolved.settings.seed == 9 and str(resolved.config) == "config.yaml"
    resolved.save(tmp_path / "settings.json")
    assert json.loads((tmp_path / "settings.json").read_text())["config"] == str(tmp_path / "config.yaml")
    assert str(tmp_path / "config.yaml") in resolved.source


FORMER = [("pretrain", "ahead_prob", 0.5), ("finetune", "ask", False)]


@pytest.mark.parametrize(("step", "old", "value"), FORMER)
def test_a_key_under_its_former_name_is_read_with_a_line(
    step: str, old: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cls = resolve_name(COMMANDS[step].settings)
    new = cls.former_names()[old]
    path = config(tmp_path, yaml.safe_dump({step: {old: value}}))
    assert getattr(resolve(cls, {}, path).settings, new) == value
    assert capsys.readouterr().err == f"Warning: {path}: {step}.{old} is now called {new}\n"
    resolve(GenerateSettings, {}, path)
    assert capsys.readouterr().err == "", "said by the step that it concerns alone"
    with pytest.raises(InputError, match=rf"{step}\.{old}: is now called {new}, which stands there too"):
        resolve(cls, {}, config(tmp_path, yaml.safe_dump({step: {old: value, new: value}})))


@pytest.mark.parametrize(
    ("step", "option", "new", "value"),
    [
        ("pretrain", "--ahead-prob=0.5", "--forecast-prob", 0.5),
        ("finetune", "--no-ask", "--no-prompt", False),
        ("finetune", "--ask", "--prompt", True),
    ],
)
def test_an_option_under_its_former_name_is_taken_with_a_line(
    step: str, option: str, new: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    command = replace(COMMANDS[step], check=f"{__name__}:_nothing", run=f"{__name__}:_nothing")
    monkeypatch.setattr(sys.modules[__name__], "_nothing", taken.append)
    result = CliRunner().invoke(script(command), [option])
    assert result.exit_code == 0, result.output
    name = new.removeprefix("--no-").removeprefix("--").replace("-", "_")
    assert getattr(taken[-1].settings, name) == value and taken[-1].origin[name] == "flag"
    assert f"Warning: {option.split('=')[0]} is now called {new}\n" in result.stderr
    both = CliRunner().invoke(script(command), [option, new if value in (True, False) else f"{new}={value}"])
    assert both.exit_code == 2 and "both are given" in both.stderr
    assert option.split("=")[0] not in CliRunner().invoke(script(command), ["--help"]).stdout


def _nothing(_: object) -> None:
    """Stand in for the check and the work of a step."""


HELP_CONFIG = "max_length: 77\npretrain: {hidden_size: 96, epochs: 10}\n"


@pytest.mark.parametrize("order", [["--help", "--config"], ["--config", "--help"]])
def test_help_shows_what_will_be_used_and_where_it_comes_from(order: list[str], tmp_path: Path) -> None:
    path = str(config(tmp_path, HELP_CONFIG))
    words = [part for word in order for part in ([word, path] if word == "--config" else [word])]
    shown = " ".join(CliRunner().invoke(script(COMMANDS["pretrain"]), words).stdout.split())
    assert "[settings.yaml: 96; default: 288]" in shown, "a value that differs from the default"
    assert "Passes over the training data. [default: 10]" in shown, "one that does not"
    assert "[settings.yaml: 77]" in shown, "a key at the top, for an option without a default"
    assert "Encoder layers. [default: 6]" in shown, "one that the file leaves out"


@pytest.mark.parametrize("text", ["pretrain: {hidden: 5}", "a: [", "pretrain: {hidden_size: many}"])
def test_help_shows_the_defaults_beside_a_broken_file(text: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(script(COMMANDS["pretrain"]), ["--config", str(config(tmp_path, text)), "--help"])
    shown = " ".join(result.stdout.split())
    assert (
        result.exit_code == 0
        and "Hidden size of the model. [default: 288]" in shown
        and "the defaults are shown" in shown
    )


def test_the_shipped_file_holds_every_option_with_a_comment() -> None:
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    keys = set(content)
    for section in SECTIONS:
        inherited = {name for base in section.__mro__[1:] for name in getattr(base, "model_fields", {})}
        own = set(section.model_fields) - inherited - set(section.shared)
        assert set(content[section.section]) == own, section.section
        keys -= {section.section, *section.shared.values()}
    assert not keys
    for name in ("generate", "reading", "convert"):  # pretrain's sizes are those of the demonstration
        defaults = next(cls for cls in SECTIONS if cls.section == name)()
        as_in_a_file = defaults.model_dump(mode="json")
        for key, value in content[name].items():
            assert value == (getattr(defaults, key) if isinstance(value, date) else as_in_a_file[key]), key
    assert GenerateSettings().novel_prob == 0.01 and ClinVecSettings().use_clinvec is False


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_every_flag_and_shows_examples(name: str, tmp_path: Path) -> None:
    cls = STEPS[SCRIPTS[name]]
    result = run_script(SCRIPTS[name], "--help", cwd=tmp_path)
    assert result.returncode == 0
    for field in cls.model_fields:
        assert cls.extra(field).get("file_only") or re.search(rf"{flag(field)}\b", result.stdout), field
    assert "Examples:" in result.stdout and f"python scripts/{SCRIPTS[name]}" in result.stdout


@pytest.mark.parametrize(
    ("program", "called"),
    [("exmed-bert", "exmed-bert pretrain"), ("exmed_bert/__main__.py", "python -m exmed_bert pretrain")],
)
def test_examples_name_the_way_the_program_was_started(
    program: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    shown = CliRunner().invoke(console_command(COMMANDS.values()), ["pretrain", "--help"]).stdout
    assert f"  {called} --epochs 10" in shown and "torchrun --nproc_per_node 2 -m exmed_bert pretrain" in shown
    assert "scripts/" not in shown


def test_the_console_command_lists_every_command_and_knows_its_version(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-X", "importtime", "-m", "exmed_bert", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert "numpy" not in done.stderr and "torch" not in done.stderr, "what makes a start slow"
        return done.stdout

    shown = run("--help")
    assert all(re.search(rf"(?m)^  {name} +\w", shown) for name in COMMANDS) and list(COMMANDS) == list(SCRIPTS)
    assert run("--version") == f"exmed-bert {exmed_bert.__version__}\n"
    assert "Number of patients. [default: 1000]" in " ".join(run("generate", "--help").split())


WRONG = {
    "generate": (["-o", "patients.txt"], 1, "patients.txt: unknown kind of file"),
    "convert": (["--input", "none.json"], 1, "none.json: file not found; make it with: python scripts/generate_"),
    "pretrain": (["--num-attention-heads", "7"], 2, "--num-attention-heads: 7 does not divide"),
    "finetune": (["--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "embed": (["--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "explain": (["--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "analyze": (["--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "share": (["--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "export": (["--onnx", "model.onnx", "--model-dir", "none"], 1, "none: --model-dir: holds no config.json"),
    "hierarchy": (["--output-dir", "file/folder"], 1, "file: is a file, expected a folder"),
    "report": (["--input", "none.json"], 1, "none.json: file not found; make it with: python scripts/generate_"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_option_is_refused_before_torch_is_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words, code, message = WRONG[name]
    command = [sys.executable, "-X", "importtime", ROOT / "scripts" / SCRIPTS[name], *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert done.returncode == code and f"Error: {message}" in done.stderr, done.stderr
    assert "pydantic" in imported and not imported & {"torch", "transformers", "sklearn", "mlflow"}


def test_wrong_options_end_with_code_2(tmp_path: Path) -> None:
    script = "generate_synthetic_patients.py"
    assert_one_line_error(run_script(script, "-p", 1.5, cwd=tmp_path), 2, "--novel-prob", "1.5")
    assert_one_line_error(run_script(script, "--number", 3, cwd=tmp_path), 2, "--number")
    assert_one_line_error(run_script(script, "-n", "x", cwd=tmp_path), 2, "--num-patients", "integer")
    assert not list(tmp_path.iterdir())


def test_settings_are_saved_with_versions(tmp_path: Path) -> None:
    resolve(GenerateSettings, {"seed": 7}, config(tmp_path, "")).save(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert saved["settings"]["seed"] == saved["seed"] == 7 and saved["settings"]["end_date"] == "2025-12-31"
    assert re.fullmatch(r"3\.\d+\.\d+", saved["versions"]["python"]) and saved["versions"]["torch"]


@pytest.mark.parametrize("program", [[str(ROOT / "scripts" / SCRIPTS["generate"])], ["-m", "exmed_bert", "generate"]])
def test_without_its_packages_a_command_says_what_to_install(program: list[str], tmp_path: Path) -> None:
    # -S hides site-packages, as on a machine where nothing was installed.
    command, environment = [sys._base_executable, "-S", *program], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert_one_line_error(done, 1, "No module named", "setup_environment.sh", "pip install -r requirements.txt")


def test_an_installed_package_says_to_install_it_again(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("exmed_bert.startup._CHECKOUT", Path("nowhere"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    prepare()
    sys.excepthook(ModuleNotFoundError, ModuleNotFoundError("no", name="yaml"), None)
    assert capsys.readouterr().err == (
        "Error: No module named 'yaml'; install exmed-bert again with pip, together with its dependencies\n"
    )
    sys.excepthook(ModuleNotFoundError, ModuleNotFoundError("no", name="exmed_bert.gone"), None)
    assert "ModuleNotFoundError: no" in capsys.readouterr().err, "a defect of ours keeps its traceback"


@pytest.mark.parametrize(
    "start",
    [
        "runpy.run_path('scripts/generate_synthetic_patients.py', None, '__main__')",
        "runpy.run_module('exmed_bert', None, '__main__')",
    ],
)
def test_every_way_in_keeps_the_libraries_off_the_network(start: str) -> None:
    code = f"""
import os, runpy, sys
sys.argv, sys.path[0] = ["program", "--help"], "scripts"
try:
    {start}
except SystemExit:
    print(*sorted(name for name in os.environ if "TELEMETRY" in name or "OFFLINE" in name))
"""
    kept = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and "OFFLINE" not in name}
    kept |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HF_HUB_DISABLE_TELEMETRY HF_HUB_OFFLINE MLFLOW_DISABLE_TELEMETRY"
