"""Step 1 as a whole: make the patients, write them with their meta file beside them, and say what they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exmed_bert import codes, console
from exmed_bert.config import GenerateSettings, Resolved
from exmed_bert.data.io import file_format, write_patients
from exmed_bert.data.patient import PatientColumns
from exmed_bert.files import write_json
from exmed_bert.synthetic.population import BLOCK, BOUNDS, generate_blocks, novel_cousins
from exmed_bert.synthetic.summary import Summary
from exmed_bert.synthetic.tables import load

FORMAT, VERSION = "exmed-bert-synthetic-patients", 1


def run(resolved: Resolved[GenerateSettings]) -> None:
    """Generate, write and report a population.

    The descriptions of an earlier run are removed when the new patients are about to take their place, and the new
    ones are written after the patients: files that stand together belong together, wherever a run is killed.

    Raises:
        InputError: the output cannot be written or its format is unknown.
    """
    settings = resolved.settings
    meta_path, settings_path = _beside(settings.output, "meta"), _beside(settings.output, "settings")
    summary = Summary()

    def patients() -> Iterator[PatientColumns]:
        with console.progress(total=settings.num_patients, label="Generating", unit="patients") as bar:
            for block in generate_blocks(settings):
                summary.add(block)
                yield block.patients
                bar.update(len(block.patients))
        meta_path.unlink(missing_ok=True)
        settings_path.unlink(missing_ok=True)

    write_patients(settings.output, patients())
    novel = summary.novel(novel_cousins(settings.seed))
    resolved.save(settings_path)
    write_json(meta_path, _meta(settings, summary, novel))

    tables = load()
    names = dict(
        zip(tables.diagnoses.codes + tables.drugs.codes, tables.diagnoses.names + tables.drugs.names, strict=True)
    )
    console.table("Synthetic patients", summary.rows(settings.end_date.year, names, novel))
    console.table(
        "Written", [("patients", settings.output), ("novel codes, counts", meta_path), ("settings", settings_path)]
    )


def _beside(output: Path, kind: str) -> Path:
    """Return the path of a description: x.jsonl.gz gives x.meta.json."""
    return output.with_name(f"{output.name[: -len(file_format(output))]}.{kind}.json")


def _meta(settings: GenerateSettings, summary: Summary, novel: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": settings.seed,
        "options": settings.model_dump(mode="json", include={"num_patients", "novel_prob", "end_date"}),
        "tables": load().digest,
        "block": BLOCK,
        "counts": {
            "patients": summary.patients,
            "diagnoses": summary.codes[codes.ICD].total(),
            "prescriptions": summary.codes[codes.ATC].total(),
            "codes": {system: dict(sorted(counts.items())) for system, counts in summary.codes.items()},
        },
        "bounds": dict(zip(BOUNDS, summary.bound.tolist(), strict=True)),
        "novel_codes": novel,
    }
