"""Many patients: workers, chunks and formats that change nothing, runs that are stopped, and real recent codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, diagnoses_of, drugs_of, record

from exmed_bert import codes
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.formats import FORMATS
from exmed_bert.data.patient import EventColumns, PatientColumns, day_number
from exmed_bert.data.patient_input import read_patients
from exmed_bert.data.writers import write_patients
from exmed_bert.reference import recent, tables
from exmed_bert.settings import ConvertSettings, GenerateSettings
from exmed_bert.synthetic import generate as step
from exmed_bert.synthetic.novel import recent_codes
from exmed_bert.synthetic.population import generate_block, generate_blocks
from exmed_bert.synthetic.summary import Summary

SCRIPT = ROOT / "scripts" / "generate_synthetic_patients.py"
END = date(2025, 12, 31)

DIAGNOSES = tables.load().diagnoses
RECENT = recent.load()
OWN = {  # recent codes of the diagnosis table, and the older code that each came from
    "U07.1": "U07",
    "R51.9": "R51",
    "N18.30": "N18.3",
    "M54.50": "M54.5",
    "R05.9": "R05",
    "F32.A": "F32.9",
}

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits as on Linux and macOS")


def generate_to(output: Path, **given: object) -> Path:
    settings = GenerateSettings(output=output, **given)
    step.run(Resolved(settings, dict.fromkeys(GenerateSettings.model_fields, "default")))
    return output


# The same file, however it is made -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", FORMATS)
def test_workers_and_chunks_change_nothing(tmp_path: Path, extension: str) -> None:
    made = []
    for workers, chunk_size in ((1, 9000), (1, 1), (2, 1), (2, 1001)):
        output = tmp_path / f"{workers}-{chunk_size}" / f"p{extension}"
        generate_to(output, num_patients=2300, seed=3, workers=workers, chunk_size=chunk_size)
        made.append((output.read_bytes(), (output.parent / "p.meta.json").read_bytes()))
    assert all(one == made[0] for one in made)
    assert sum(map(len, read_patients(output))) == 2300


def test_more_patients_only_add_lines(tmp_path: Path) -> None:
    few = generate_to(tmp_path / "few.jsonl", num_patients=700).read_bytes()
    many = generate_to(tmp_path / "many.jsonl", num_patients=2400, workers=2, chunk_size=1000).read_bytes()
    assert many.startswith(few) and many.count(b"\n") == 2400 and few.count(b"\n") == 700


@pytest.mark.parametrize("extension", FORMATS)
def test_a_file_does_not_depend_on_how_its_patients_come(tmp_path: Path, extension: str) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text("\n".join(json.dumps(record(i, birth_year=1900 + i % 100)) for i in range(20_500)))
    paths = []
    for chunk in (700, 10_000, 30_000):
        paths.append(tmp_path / f"{chunk}{extension}")
        assert write_patients(paths[-1], read_patients(source, size=chunk)) == 20_500
    first, *others = (path.read_bytes() for path in paths)
    assert all(other == first for other in others)
    if extension == ".parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.ParquetFile(paths[0]).metadata
        assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [10_000, 10_000, 500]


def test_a_summary_is_the_sum_of_its_blocks() -> None:
    at_once, merged = Summary(), Summary()
    for block in generate_blocks(GenerateSettings(num_patients=2100)):
        at_once.add(block)
        part = Summary()
        part.add(block)
        merged.merge(part)
    assert merged.rows(2025, {}, {}) == at_once.rows(2025, {}, {})
    assert merged.codes == at_once.codes and merged.patients == 2100


def test_one_worker_is_this_process() -> None:
    work = (
        "import sys; from exmed_bert.settings import GenerateSettings as Settings; "
        "from exmed_bert.synthetic.population_file import generate_pieces; "
        "print(sum(piece.patients for piece, _ in generate_pieces(Settings(num_patients=1200)))); "
        "assert not {'joblib', 'multiprocessing', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1200\n", "")


# Runs that are stopped -----------------------------------------------------------------------------------------------


def start_run(output: Path, patients: int = 500_000) -> subprocess.Popen[str]:
    """Start a long run with two workers in a process group of its own; return once it has written something."""
    command = [sys.executable, str(SCRIPT), "-n", str(patients), "--workers", "2", "--chunk-size", "1000"]
    run = subprocess.Popen(
        [*command, "-o", str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size for part in output.parent.glob(".*.part/new/.*.part")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return run


def group_is_gone(leader: int) -> bool:
    """Wait for the last process of a group to end."""
    for _ in range(200):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@posix
@pytest.mark.slow
def test_a_killed_run_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    output = generate_to(tmp_path / "p.jsonl.gz", num_patients=20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = start_run(output)
    run.kill()
    run.wait()
    assert group_is_gone(run.pid), "workers end with the run"
    left = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    assert left == before and list(tmp_path.glob(".*.part"))
    generate_to(output, num_patients=20)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "the next run tidies up"


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_too(number: signal.Signals, tmp_path: Path) -> None:
    run = start_run(tmp_path / "p.jsonl")
    os.killpg(run.pid, number)  # as a terminal does, and a batch system
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + number and errors.startswith("Error: stopped") and errors.count("\n") == 1
    assert group_is_gone(run.pid) and not list(tmp_path.iterdir())


@posix
@pytest.mark.slow
def test_a_full_disk_and_a_lost_worker_take_one_line(tmp_path: Path) -> None:
    import resource

    output = tmp_path / "p.jsonl"
    command = [sys.executable, str(SCRIPT), "-n", "20000", "--workers", "2", "--chunk-size", "1000", "-o", str(output)]
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert full.returncode == 1 and "cannot be written" in full.stderr and full.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())

    children = Path("/proc/self/task").is_dir()
    if children:
        run = start_run(output)
        found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in found}
        worker = next(child for child, command in commands.items() if "LokyProcess" in command)
        os.kill(worker, signal.SIGKILL)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 1 and "worker process was killed" in errors and errors.count("\n") == 1
        assert group_is_gone(run.pid) and not list(tmp_path.iterdir())


# Recent codes --------------------------------------------------------------------------------------------------------


def recent_block(probability: float, end: date = END, seed: int = 2) -> PatientColumns:
    return generate_block(seed, 0, probability, end, novel_kind="recent").patients


def owners(events: EventColumns) -> np.ndarray:
    """Return the patient's index of each event."""
    return np.repeat(np.arange(len(events.offsets) - 1), events.counts())


def test_the_table_of_recent_codes() -> None:
    novel = recent_codes(DIAGNOSES)
    assert {code: novel.origins[code] for code in RECENT.codes if code in DIAGNOSES.codes} == OWN
    assert novel.table[: len(DIAGNOSES.codes)] == DIAGNOSES.codes
    assert set(novel.table[len(DIAGNOSES.codes) :]) == set(RECENT.codes) - OWN.keys()
    assert len(set(novel.table)) == len(novel.table), "none replaces two codes, so none stands twice in a visit"
    assert len(RECENT.codes) - len(OWN) >= 20
    assert (day_number(date(2020, 4, 1)) <= RECENT.valid_from).all(), "younger than ClinVec's sources"
    assert set(RECENT.codes) == {codes.normalize(code, codes.ICD10CM) for code in RECENT.codes}


@pytest.mark.parametrize("end", [date(2020, 9, 30), date(2021, 11, 15), date(2023, 12, 31), END])
def test_recent_codes_keep_to_their_dates_and_sexes(end: date) -> None:
    events = diagnoses_of(patients := recent_block(1.0, end))
    source = dict(zip(RECENT.codes, RECENT.sources, strict=True))
    valid_from = dict(zip(RECENT.codes, RECENT.valid_from.tolist(), strict=True))
    limits = [DIAGNOSES.codes.index(code if code in DIAGNOSES.codes else source[code]) for code in events.table]
    first_days = np.array([valid_from.get(code, -(10**6)) for code in events.table])
    assert (events.days >= first_days[events.codes]).all()
    female = np.array(patients.static["sex"])[owners(events)] == "FEMALE"
    assert DIAGNOSES.limits.sexes[limits][events.codes, female.astype(int)].all()
    visits = set(zip(owners(events).tolist(), events.days.tolist(), events.codes.tolist(), strict=True))
    assert len(visits) == len(events.codes), "a code once a visit"

    # With a probability of one, what can be replaced is.
    for code, first_day in valid_from.items():
        if code not in OWN and source[code] in events.table:
            of_source = events.codes == list(events.table).index(source[code])
            assert not (events.days[of_source] >= first_day).any(), code


def test_sexes_carry_over(tmp_path: Path) -> None:
    """No recent code at hand is of one sex alone; a table in which one is shows that the source decides."""
    shutil.copytree(tables.FOLDER, tmp_path, dirs_exist_ok=True)
    with open(tmp_path / "recent_codes.csv", "a") as file:
        file.write("N40.9,N40.1,2020-10-01,not a code,estimate,estimate\n")
    novel = recent_codes(DIAGNOSES, tmp_path)
    source = novel.sources[novel.table.index("N40.9")]
    assert DIAGNOSES.codes[source] == "N40.1" and DIAGNOSES.limits.sexes[source].tolist() == [True, False]


def test_recent_codes_change_nothing_else() -> None:
    plain, replaced = recent_block(0.0), recent_block(0.5)
    invented = generate_block(2, 0, 0.0, END).patients
    assert list(plain.records()) == list(invented.records()), "without replacement both kinds are the same"
    assert (diagnoses_of(plain).days == diagnoses_of(replaced).days).all() and (plain.plos == replaced.plos).all()
    assert (
        drugs_of(plain).table == drugs_of(replaced).table and (drugs_of(plain).codes == drugs_of(replaced).codes).all()
    )

    # Half of the events that can be replaced are, and the neighbors named first most often.
    def counts(patients: PatientColumns) -> Counter[str]:
        events = diagnoses_of(patients)
        late = events.days >= day_number(date(2021, 10, 1))
        return Counter(np.array(events.table)[events.codes[late]].tolist())

    before, after = counts(plain), counts(replaced)
    assert after["R05.9"] / before["R05.9"] == pytest.approx(0.5, abs=0.2)
    assert sum(after[code] for code in ("R05.1", "R05.2", "R05.3", "R05.8", "R05.9")) == before["R05.9"]
    assert after["R05.1"] > after["R05.2"]


def test_meta_names_every_recent_code(tmp_path: Path) -> None:
    output = generate_to(tmp_path / "p.jsonl", num_patients=1500, novel_prob=0.1, novel_kind="recent", seed=9)
    used = Counter(
        code
        for line in output.read_text().splitlines()
        for code in json.loads(line)["diagnoses"]
        if code in RECENT.codes
    )
    meta = json.loads((tmp_path / "p.meta.json").read_text())
    assert meta["options"]["novel_kind"] == "recent"
    assert {code: entry["count"] for code, entry in meta["novel_codes"].items()} == used
    assert OWN.items() <= {code: entry["source"] for code, entry in meta["novel_codes"].items()}.items()
    assert len(used) > 20
    for code, entry in meta["novel_codes"].items():
        assert entry["system"] == "icd" and entry["parent"] == codes.parent(code, codes.ICD10CM)
        assert entry["source"] == dict(zip(RECENT.codes, RECENT.sources, strict=True))[code]
    assert meta["counts"]["codes"]["atc"].keys() <= set(tables.load().drugs.codes)

    from exmed_bert.data.convert import convert

    made = convert(ConvertSettings(input=output, output=tmp_path / "d.pt")).datasets["train"]
    assert set(made.info.novel_codes) == used.keys()
    assert len(made.novel_ids) == len(used.keys() & set(made.info.vocabulary.tokens))


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("\nI1A.0,", "\nresistant,", "line .*'resistant', is no ICD-10-CM code"),
        ("\nI1A.0,", "\nR51.0,", "a code stands twice"),
        ("I1A.0,I10,", "I1A.0,hypertension,", "source_code: 'hypertension', is no ICD-10-CM code"),
        ("I1A.0,I10,", "I1A.0,I15.9,", "I1A.0: source_code: 'I15.9' is not in diagnoses.csv"),
        ("I1A.0,I10,2023-10-01", "I1A.0,I10,October", "valid_from: 'October', is not readable"),
        ("U07.1,U07,2020-04-01", "U07.1,U07,2020-04-02", "U07.1: valid_from: expected the day that diagnoses.csv"),
    ],
)
def test_a_wrong_table_of_recent_codes_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = (tables.FOLDER / "recent_codes.csv").read_text()
    assert old in text
    (tmp_path / "recent_codes.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=f"recent_codes.csv.*{problem}"):
        recent_codes(DIAGNOSES, tmp_path)
