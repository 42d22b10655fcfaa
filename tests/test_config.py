"""Settings: precedence, refusals, and the shipped config.yaml."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, assert_one_line_error, run_script

from exmed_bert.config import (
    DEFAULT_CONFIG,
    SECTIONS,
    AnalyzeSettings,
    ClinVecSettings,
    ConvertSettings,
    GenerateSettings,
    PretrainSettings,
    ReportSettings,
    flag,
    resolve,
)
from exmed_bert.console import InputError, OptionError

STEPS = {
    "generate_synthetic_patients.py": GenerateSettings,
    "report_synthetic_data.py": ReportSettings,
    "convert_synthetic_to_dataset.py": ConvertSettings,
    "pretrain-exmed-bert-clinvec.py": PretrainSettings,
    "analyze_novel_codes.py": AnalyzeSettings,
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
    monkeypatch.setattr("exmed_bert.config.DEFAULT_CONFIG", tmp_path / "none.yaml")
    assert resolve(GenerateSettings, {}).settings == GenerateSettings()


def test_the_shipped_file_holds_every_option_with_a_comment() -> None:
    content = yaml.safe_load(DEFAULT_CONFIG.read_text())
    keys = set(content)
    for section in SECTIONS:
        inherited = {name for base in section.__mro__[1:] for name in getattr(base, "model_fields", {})}
        own = set(section.model_fields) - inherited - set(section.shared)
        assert set(content[section.section]) == own, section.section
        keys -= {section.section, *section.shared.values()}
    assert not keys
    for name in ("generate", "convert"):  # pretrain's sizes are those of the demonstration
        defaults = next(cls for cls in SECTIONS if cls.section == name)()
        for key, value in content[name].items():
            default = getattr(defaults, key)
            assert value == (default if isinstance(default, date) else type(value)(default)), key
    assert GenerateSettings().novel_prob == 0.01 and ClinVecSettings().use_clinvec is False


@pytest.mark.parametrize("script", STEPS)
def test_help_names_every_flag_and_shows_examples(script: str, tmp_path: Path) -> None:
    result = run_script(script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    for name in STEPS[script].model_fields:
        assert re.search(rf"{flag(name)}\b", result.stdout), name
    assert "Examples:" in result.stdout and f"scripts/{script}" in result.stdout


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


def test_without_its_packages_a_script_says_what_to_install(tmp_path: Path) -> None:
    # -S hides site-packages, as on a machine where nothing was installed.
    import subprocess
    import sys

    script = ROOT / "scripts" / "generate_synthetic_patients.py"
    result = subprocess.run([sys._base_executable, "-S", script], capture_output=True, text=True, check=False)
    assert_one_line_error(result, 1, "No module named", "setup_environment.sh", "pip install -r requirements.txt")
