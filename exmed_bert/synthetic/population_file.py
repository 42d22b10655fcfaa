"""The population as one file, and what its meta file says beside it."""

import functools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from exmed_bert import console
from exmed_bert.data.formats import file_format
from exmed_bert.data.writers import Piece, prepare, write_pieces
from exmed_bert.parallel import ordered_map
from exmed_bert.settings import GenerateSettings
from exmed_bert.staging import write_json
from exmed_bert.synthetic.population import BLOCK, fields_of, generate_blocks, novel_codes
from exmed_bert.synthetic.summary import Summary, meta


def write_population(settings: GenerateSettings, path: Path) -> Summary:
    """Generate a population, write it as a file of the format of its name and the meta file beside; summarize it.

    Raises:
        InputError: the file cannot be written, or a worker process was killed.
    """
    summary = Summary()

    def patients() -> Generator[Piece, None, None]:
        with console.progress(total=settings.num_patients, label="Generating", unit=" patients") as bar:
            for piece, part in generate_pieces(settings.model_copy(update={"output": path})):
                summary.merge(part)
                yield piece
                bar.update(piece.patients)

    with closing(patients()) as pieces:  # should the disk be full, the workers end before the error is told
        write_pieces(path, pieces)
    novel = summary.novel(novel_codes(settings.seed, settings.novel_kind))
    write_json(beside(path, "meta"), meta(settings, summary, novel))
    return summary


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


def beside(output: Path, kind: str) -> Path:
    """Return the path of a description: x.jsonl.gz gives x.meta.json."""
    return output.with_name(f"{output.name[: -len(file_format(output))]}.{kind}.json")
