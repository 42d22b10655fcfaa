"""What is fuzzed: small files of every kind that a user passes in, and how each is read."""

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the tests' helpers are
from clinvec_files import write_clinvec_folder
from conftest import ROOT, record, write_records

from exmed_bert.analysis.novel_codes.inputs import named_training_data
from exmed_bert.clinvec.reader import read_clinvec
from exmed_bert.cohorts.label_file import read_labels
from exmed_bert.config import read_config
from exmed_bert.data.convert import convert
from exmed_bert.data.shards import open_dataset, verify
from exmed_bert.data.translation.athena import Vocabularies
from exmed_bert.data.translation.code_map import read_code_map
from exmed_bert.data.vocabulary_file import read_vocabulary
from exmed_bert.settings import ConvertSettings

EXAMPLES = ROOT / "examples"
ROWS = 150  # of each table


@dataclass(frozen=True)
class Target:
    """Something that is read.

    Attributes:
        name: of it.
        make: writes its files into a folder.
        read: reads them from a folder; what it may write goes to ``out`` there.
        weight: how many inputs it gets, as compared with others.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    weight: int = 1


def people() -> list[dict[str, Any]]:
    """Return a few records, with all that a record may have."""
    made = [record(i) for i in range(12)]
    made[3] |= {"events": [{"system": "rxnorm", "code": "161", "date": "20200101"}], "death_date": "20240101"}
    made[4] |= {"observation_start": "2010-01-01", "observation_end": "20231231", "had_plos": None, "sex": None}
    return made


def conversion(*names: str, **changes: Any) -> Callable[[Path], Any]:
    """Return a function that converts the files of a folder; names are those of the input."""

    def read(folder: Path) -> None:
        paths = tuple(folder / name for name in names)
        given = {name: folder / value if isinstance(value, Path) else value for name, value in changes.items()}
        settings = {"output": folder / "out/d.pt", "split": "train", "min_observations": 2, "workers": 1, **given}
        convert(ConvertSettings(input=paths, **settings))

    return read


def _json_lines(folder: Path) -> None:
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, people())))


def _gzip_lines(folder: Path) -> None:
    (folder / "p.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, people())).encode(), mtime=0))


def _parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(people()), folder / "p.parquet")


def _with_meta(folder: Path) -> None:
    write_records(folder / "p.json", people())
    content = {"format": "exmed-bert-synthetic-patients", "version": 1, "seed": 1, "options": {"novel_prob": 0.1}}
    content |= {"counts": {"patients": 12, "diagnoses": 36, "prescriptions": 24}, "bounds": {}}
    content |= {"novel_codes": {"E11.95": {"source": "E11.9", "parent": "E11"}}}
    (folder / "p.meta.json").write_text(json.dumps(content))


def example(name: str) -> Callable[[Path], None]:
    """Return a function that writes the first rows of each table of an example."""

    def make(folder: Path) -> None:
        for path in sorted((EXAMPLES / name / "data").rglob("*")):
            target = folder / "data" / path.relative_to(EXAMPLES / name / "data")
            if path.is_dir():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.name.endswith(".parquet"):
                import pyarrow.parquet

                pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 3 * ROWS), target)
            elif path.name.endswith(".gz"):
                lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
                target.write_bytes(gzip.compress(b"".join(lines[:ROWS]), 1, mtime=0))
            else:
                target.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:ROWS]))
        for path in sorted((EXAMPLES / name).glob("*.csv")):
            shutil.copy(path, folder / path.name)

    return make


def _bundle(folder: Path) -> None:
    (folder / "data").mkdir()
    entries = []
    for name in ("Patient", "Encounter", "Condition.000", "MedicationRequest", "Medication"):
        lines = gzip.decompress((EXAMPLES / f"fhir/data/{name}.ndjson.gz").read_bytes()).splitlines()
        entries += [{"resource": json.loads(line)} for line in lines[:8]]
    (folder / "data/bundle.json").write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))


def _table(folder: Path) -> None:
    events = EXAMPLES / "csv/data/events.csv"
    for path, rows in ((events, ROWS), (events.with_name("people.csv"), ROWS)):
        lines = path.read_text().splitlines()[:rows]
        (folder / path.with_suffix(".tsv").name).write_text("\n".join(lines).replace(",", "\t"))


def _dataset(folder: Path) -> None:
    write_records(folder / "made/p.json", people())
    settings = {"output": folder / "made/d.pt", "min_observations": 2, "dynamic_masking": False}
    made = convert(ConvertSettings(input=(folder / "made/p.json",), **settings))  # type: ignore[arg-type]
    made.paths["train"].rename(folder / "d.pt")
    shutil.rmtree(folder / "made")


def _shards(folder: Path) -> None:
    for part in range(2):
        write_records(folder / f"made/in/{part}.json", [record(i + 10 * part) for i in range(10)])
    settings = {"output": folder / "made/d.pt", "shard_size": 5, "workers": 1}
    made = convert(ConvertSettings(input=(folder / "made/in",), **settings))  # type: ignore[arg-type]
    made.paths["train"].rename(folder / "d")
    shutil.rmtree(folder / "made")


def _model_settings(folder: Path) -> None:
    content = {"step": "pretrain", "settings": {"training_data": "d_train.pt", "seed": 1}, "config": None}
    (folder / "settings.json").write_text(json.dumps(content))


def _named_dataset(folder: Path) -> None:
    path = named_training_data(folder)
    if path is not None:
        open_dataset(path)


def _looked_through(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        dataset = open_dataset(folder / name)
        verify(folder / name, dataset)
        dataset.batch(range(len(dataset)))
        for i in range(len(dataset)):
            dataset.patient(i)
        dataset.stats()
        dataset.subset([0] if len(dataset) else [])

    return read


def _labels(folder: Path) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    rows = {"subject_id": list(range(9)), "prediction_time": ["2023-01-01 12:00:00"] * 9, "boolean_value": [True] * 9}
    table = pyarrow.Table.from_pydict(rows)
    (folder / "labels").mkdir()
    pyarrow.csv.write_csv(table, folder / "labels/a.csv")
    pyarrow.parquet.write_table(table.slice(0, 0), folder / "labels/b.parquet")


def _code_map(folder: Path) -> None:
    shutil.copy(EXAMPLES / "mimic/code_map.csv", folder / "map.csv")


def _athena(folder: Path) -> None:
    shutil.copytree(EXAMPLES / "omop/data/vocabulary", folder / "athena")


def _vocabulary(folder: Path) -> None:
    tokens = ("PAD", "UNK", "CLS", "SEP", "MASK", "NA")
    content = {name: {"id": i, "entity": "default"} for i, name in enumerate(tokens)}
    content |= {"C10AA05": {"id": 6, "entity": "atc"}, "I10": {"id": 7, "entity": "icd"}}
    (folder / "vocab.json").write_text(json.dumps(content))


def _athena_read(folder: Path) -> None:
    Vocabularies(folder / "athena").atc([("rxnorm", "161"), ("ndc", "00002143380")])


TARGETS = (
    Target("json", lambda f: write_records(f / "p.json", people()), conversion("p.json"), 10),
    Target("jsonl", _json_lines, conversion("p.jsonl"), 10),
    Target("jsonl.gz", _gzip_lines, conversion("p.jsonl.gz"), 8),
    Target("parquet", _parquet, conversion("p.parquet"), 8),
    Target("meta", _with_meta, conversion("p.json"), 4),
    Target("csv", example("csv"), conversion("data", columns=("system=system",))),
    Target("tsv", _table, conversion("events.tsv", "people.tsv", columns=("system=system",))),
    Target("meds", example("meds"), conversion("data", input_format="meds")),
    Target("omop", example("omop"), conversion("data", athena=Path("data/vocabulary"), input_format="omop")),
    Target("fhir", example("fhir"), conversion("data", code_map=Path("code_map.csv"), input_format="fhir")),
    Target("bundle", _bundle, conversion("data")),
    Target("mimic", example("mimic"), conversion("data", code_map=Path("code_map.csv"), input_format="mimic")),
    Target("synthea", example("synthea"), conversion("data", code_map=Path("code_map.csv"), input_format="synthea")),
    Target("dataset", _dataset, _looked_through("d.pt"), 30),
    Target("shards", _shards, _looked_through("d"), 10),
    Target("config", lambda f: shutil.copy(ROOT / "config.yaml", f), lambda f: read_config(f / "config.yaml"), 5),
    Target("labels", _labels, lambda f: read_labels(f / "labels", True), 20),
    Target(
        "clinvec",
        lambda f: write_clinvec_folder(f / "c", {"icd10cm": ["I10", "E11.9", "E11"], "atc": ["C10AA05"]}, 4),
        lambda f: read_clinvec(f / "c", "auto"),
        10,
    ),
    Target("code map", _code_map, lambda f: read_code_map(f / "map.csv"), 15),
    Target("athena", _athena, _athena_read),
    Target("model settings", _model_settings, _named_dataset, 5),
    Target("vocabulary", _vocabulary, lambda f: read_vocabulary(f / "vocab.json"), 15),
)
