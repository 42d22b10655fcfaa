"""Step 1 as a whole: generate the patients, write a file or shards with a meta file beside, and summarize them."""

import functools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from exmed_bert import cluster, console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.formats import POPULATION_META, POPULATION_SETTINGS, file_format
from exmed_bert.data.writers import Piece, prepare, write_pieces
from exmed_bert.files import check_writable_file, read_json
from exmed_bert.locks import held
from exmed_bert.parallel import engine, ordered_map
from exmed_bert.reference import recent as recent_codes
from exmed_bert.reference.tables import load
from exmed_bert.settings import GenerateSettings
from exmed_bert.staging import staged_files, write_json
from exmed_bert.startup import called
from exmed_bert.synthetic import shards
from exmed_bert.synthetic.population import BLOCK, fields_of, generate_blocks, novel_codes
from exmed_bert.synthetic.summary import Summary, meta, population


def check(settings: GenerateSettings) -> None:
    """Refuse a file or shards that cannot be written, before any patient is made.

    Raises:
        InputError: its folder cannot be written or its format is unknown.
        OptionError: options contradict each other.
    """
    cluster.check(settings.scheduler)
    if settings.shards is not None:
        shards.check(settings, settings.shards)
        return
    file_format(settings.output)
    check_writable_file(settings.output)


def run(resolved: Resolved[GenerateSettings]) -> None:
    """Generate, write and report a population; patients and their descriptions appear together.

    Raises:
        InputError: the output cannot be written or its format is unknown, or another process is writing it.
    """
    settings = resolved.settings
    with held(settings.output, called("generate")), engine(settings.scheduler, settings.workers):
        if settings.shards is None:
            summary, meta_path, settings_path = _write_file(resolved)
        else:
            summary = shards.write_shards(resolved, settings.shards)
            meta_path, settings_path = settings.output / POPULATION_META, settings.output / POPULATION_SETTINGS

    tables, recent = load(), recent_codes.load()
    names = dict(zip(recent.codes, recent.names, strict=True))
    names |= dict(zip(tables.diagnoses.codes, tables.diagnoses.names, strict=True))
    names |= dict(zip(tables.drugs.codes, tables.drugs.names, strict=True))
    novel = summary.novel(novel_codes(settings.seed, settings.novel_kind))
    console.table("Synthetic patients", summary.rows(settings.end_date.year, names, novel))
    console.table(
        "Written", [("patients", settings.output), ("novel codes, counts", meta_path), ("settings", settings_path)]
    )


def _write_file(resolved: Resolved[GenerateSettings]) -> tuple[Summary, Path, Path]:
    """Write the patients to one file, and their descriptions; return their summary and where the descriptions are."""
    settings = resolved.settings
    meta_path, settings_path = _beside(settings.output, "meta"), _beside(settings.output, "settings")
    summary, replaced = Summary(), _other_patients(settings, meta_path)

    def patients() -> Generator[Piece, None, None]:
        with console.progress(total=settings.num_patients, label="Generating", unit=" patients") as bar:
            for piece, part in generate_pieces(settings):
                summary.merge(part)
                yield piece
                bar.update(piece.patients)

    with staged_files(settings.output.parent) as staged:
        with closing(patients()) as pieces:  # should the disk be full, the workers end before the error is told
            write_pieces(staged / settings.output.name, pieces)
        resolved.save(staged / settings_path.name)
        novel = summary.novel(novel_codes(settings.seed, settings.novel_kind))
        write_json(staged / meta_path.name, meta(settings, summary, novel))
    if replaced:
        console.echo(
            f"Note: {settings.output} held {replaced}, which are replaced; what was made of them is still theirs"
        )
    return summary, meta_path, settings_path


def _other_patients(settings: GenerateSettings, meta_path: Path) -> str:
    """Return which other patients of ours the output holds that are to be replaced, "" where it holds none."""
    try:
        earlier = read_json(meta_path) if settings.output.is_file() and meta_path.is_file() else None
    except InputError:
        return ""  # of a meta file that is damaged nothing is known
    new = population(settings)
    if not isinstance(earlier, dict) or new == {name: earlier.get(name) for name in new}:
        return ""
    counts, seed = earlier.get("counts"), earlier.get("seed")
    patients = counts.get("patients") if isinstance(counts, dict) else None
    known = type(patients) is int and type(seed) is int
    return f"{patients:,} other patients (seed {seed})" if known else "other patients"


def generate_pieces(settings: GenerateSettings) -> Iterator[tuple[Piece, Summary]]:
    """Yield the population's blocks in order, each ready to be written and with its summary.

    They do not depend on the number of workers or on the chunk size.

    Raises:
        InputError: a worker process was killed.
    """
    blocks, size = -(-settings.num_patients // BLOCK), -(-settings.chunk_size // BLOCK)
    workers = min(settings.workers, -(-blocks // size))
    if workers == 1 and settings.scheduler is None:
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
        pieces.append((prepare(block.patients, file_format(settings.output), fields_of(settings)), summary))
    return pieces


def _beside(output: Path, kind: str) -> Path:
    """Return the path of a description: x.jsonl.gz gives x.meta.json."""
    return output.with_name(f"{output.name[: -len(file_format(output))]}.{kind}.json")
