"""Step 1 as a whole: generate the patients, write them with their meta file beside them, and summarize them."""

import functools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from exmed_bert import codes, console
from exmed_bert.config import Resolved
from exmed_bert.data.formats import file_format
from exmed_bert.data.writers import Piece, prepare, write_pieces
from exmed_bert.files import check_writable_file, write_json
from exmed_bert.parallel import ordered_map
from exmed_bert.reference import recent as recent_codes
from exmed_bert.reference.tables import load
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic.population import BLOCK, BOUNDS, generate_blocks, novel_codes
from exmed_bert.synthetic.summary import Summary

FORMAT, VERSION = "exmed-bert-synthetic-patients", 1


def check(settings: GenerateSettings) -> None:
    """Refuse a file that cannot be written, before any patient is made.

    Raises:
        InputError: its folder cannot be written or its format is unknown.
    """
    file_format(settings.output)
    check_writable_file(settings.output)


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

    def patients() -> Generator[Piece, None, None]:
        with console.progress(total=settings.num_patients, label="Generating", unit=" patients") as bar:
            for piece, part in generate_pieces(settings):
                summary.merge(part)
                yield piece
                bar.update(piece.patients)
        meta_path.unlink(missing_ok=True)
        settings_path.unlink(missing_ok=True)

    with closing(patients()) as pieces:  # should the disk be full, the workers end before the error is told
        write_pieces(settings.output, pieces)
    novel = summary.novel(novel_codes(settings.seed, settings.novel_kind))
    resolved.save(settings_path)
    write_json(meta_path, _meta(settings, summary, novel))

    tables, recent = load(), recent_codes.load()
    names = dict(zip(recent.codes, recent.names, strict=True))
    names |= dict(zip(tables.diagnoses.codes, tables.diagnoses.names, strict=True))
    names |= dict(zip(tables.drugs.codes, tables.drugs.names, strict=True))
    console.table("Synthetic patients", summary.rows(settings.end_date.year, names, novel))
    console.table(
        "Written", [("patients", settings.output), ("novel codes, counts", meta_path), ("settings", settings_path)]
    )


def generate_pieces(settings: GenerateSettings) -> Iterator[tuple[Piece, Summary]]:
    """Yield the population's blocks in order, each ready to be written and with its summary.

    They do not depend on the number of workers or on the chunk size.

    Raises:
        InputError: a worker process was killed.
    """
    blocks, size = -(-settings.num_patients // BLOCK), -(-settings.chunk_size // BLOCK)
    workers = min(settings.workers, -(-blocks // size))
    if workers == 1:
        size = 1  # nothing to send: a block in memory is enough, and the progress bar moves with each
    chunks = [range(first, min(first + size, blocks)) for first in range(0, blocks, size)]
    for pieces in ordered_map(functools.partial(_pieces, settings), chunks, workers):
        yield from pieces


def _pieces(settings: GenerateSettings, numbers: range) -> list[tuple[Piece, Summary]]:
    """Generate the blocks of these numbers."""
    pieces = []
    for block in generate_blocks(settings, numbers):
        summary = Summary()
        summary.add(block)
        pieces.append((prepare(block.patients, file_format(settings.output)), summary))
    return pieces


def _beside(output: Path, kind: str) -> Path:
    """Return the path of a description: x.jsonl.gz gives x.meta.json."""
    return output.with_name(f"{output.name[: -len(file_format(output))]}.{kind}.json")


def _meta(settings: GenerateSettings, summary: Summary, novel: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": settings.seed,
        "options": settings.model_dump(mode="json", include={"num_patients", "novel_prob", "novel_kind", "end_date"}),
        "tables": load().digest,
        "block": BLOCK,
        "counts": {
            "patients": summary.patients,
            "diagnoses": summary.codes[codes.ICD10CM].total(),
            "prescriptions": summary.codes[codes.ATC].total(),
            "codes": {
                codes.code_system(system).entity: dict(sorted(counts.items()))
                for system, counts in summary.codes.items()
            },
        },
        "bounds": dict(zip(BOUNDS, summary.bound.tolist(), strict=True)),
        "novel_codes": novel,
    }
