"""The population as a folder of shards: each is made by one worker and written whole, one after another or at once.

The shards hold the patients of the single file, in its order. A run that is killed goes on with the missing shards.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from exmed_bert import __version__, console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import FORMATS, POPULATION_META, POPULATION_SETTINGS
from exmed_bert.data.writers import Piece, prepare, write_pieces
from exmed_bert.files import check_writable, make_folder, read_json
from exmed_bert.parallel import Pace, unordered_map
from exmed_bert.processes import worker_name
from exmed_bert.reference.tables import load
from exmed_bert.settings import GenerateSettings
from exmed_bert.staging import staged_folder, write_json
from exmed_bert.synthetic.population import BLOCK, fields_of, generate_blocks, novel_codes
from exmed_bert.synthetic.summary import Summary, meta
from exmed_bert.work_folder import work_folder

_NOT_IDENTITY = {"workers", "scheduler", "chunk_size"}  # what changes nothing of the shards


@dataclass(frozen=True)
class _Task:
    """A shard: its file, the file that says what is in it, written last, and its blocks."""

    settings: GenerateSettings
    path: Path
    summary: Path
    blocks: range


@dataclass(frozen=True)
class _Made:
    """A shard that was written: its summary, the seconds that it took, and the process that did it."""

    summary: Summary
    seconds: float
    worker: str


def check(settings: GenerateSettings, shards: int) -> None:
    """Refuse shards that cannot be made or written, before any patient is.

    Raises:
        InputError: the folder cannot be written, or holds something else.
        OptionError: --output is a file's name, or there are more shards than blocks of patients.
    """
    folder, blocks = settings.output, -(-settings.num_patients // BLOCK)
    if folder.name.lower().endswith(FORMATS):
        raise OptionError(f"--shards: --output {folder} names a file, expected a folder such as data/population")
    if shards > blocks:
        raise OptionError(
            f"--shards {shards}: expected at most {blocks}, a shard for each thousand of {settings.num_patients:,} "
            "patients"
        )
    check_writable(folder.parent)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        _check_replaceable(folder)


def write_shards(resolved: Resolved[GenerateSettings], shards: int) -> Summary:
    """Generate a population and write it as a folder, whole or not at all; return its summary.

    Raises:
        InputError: the folder cannot be written.
        WorkersLost: a worker process was killed.
    """
    settings = resolved.settings
    place = Path(os.path.abspath(settings.output))
    identity = {
        "version": __version__,
        "tables": load().digest,
        "settings": settings.model_dump(mode="json", exclude=_NOT_IDENTITY),
    }
    with work_folder(place.with_name(f".{place.name}.generating"), identity, done="*/part-*.json") as work:
        tasks = _tasks(settings, shards, work)
        made = _made(settings, tasks)
        total = Summary()
        for task in tasks:
            total.merge(made[task.path.name])
        with staged_folder(place, _check_replaceable) as staged:
            for task in tasks:
                os.replace(task.path, staged / task.path.name)
            resolved.save(staged / POPULATION_SETTINGS)
            of_folder = {"shards": [task.path.name for task in tasks]}
            novel = total.novel(novel_codes(settings.seed, settings.novel_kind))
            write_json(staged / POPULATION_META, meta(settings, total, novel) | of_folder)
    return total


def _tasks(settings: GenerateSettings, shards: int, work: Path) -> list[_Task]:
    """Divide the blocks evenly."""
    blocks = -(-settings.num_patients // BLOCK)
    files, summaries = make_folder(work / "shards"), make_folder(work / "summaries")
    starts = [blocks * number // shards for number in range(shards + 1)]
    return [
        _Task(
            settings,
            files / f"part-{number:05}.{settings.shard_format}",
            summaries / f"part-{number:05}.json",
            range(first, following),
        )
        for number, (first, following) in enumerate(pairwise(starts))
    ]


def _made(settings: GenerateSettings, tasks: Sequence[_Task]) -> dict[str, Summary]:
    """Make the shards that are missing; return what is in each, by its file's name."""
    done: dict[str, Summary] = {}
    for task in tasks:
        if task.path.is_file() and task.summary.is_file():
            done[task.path.name] = Summary.from_plain(read_json(task.summary))
    missing = [task for task in tasks if task.path.name not in done]
    before, pace = sum(summary.patients for summary in done.values()), Pace()
    with console.progress(total=settings.num_patients, label="Generating", unit=" patients", initial=before) as bar:
        for number, shard in unordered_map(_make, missing, settings.workers):
            done[missing[number].path.name] = shard.summary
            pace.note(shard.worker, shard.summary.patients, shard.seconds)
            bar.set_postfix_str(f"{len(done)} of {len(tasks)} shards{pace}")
            bar.update(shard.summary.patients)
    return done


def _make(task: _Task) -> _Made:
    """Generate a shard block by block and write it, then what is in it."""
    start, summary = time.perf_counter(), Summary()

    def pieces() -> Iterator[Piece]:
        for block in generate_blocks(task.settings, task.blocks):
            summary.add(block)
            yield prepare(block.patients, f".{task.settings.shard_format}", fields_of(task.settings))

    write_pieces(task.path, pieces())
    write_json(task.summary, summary.to_plain())
    return _Made(summary, time.perf_counter() - start, worker_name())


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a population in shards.

    Raises:
        InputError: something else is there.
    """
    names: set[Any] = set() if folder.is_file() else {path.name for path in folder.iterdir()}
    known = {POPULATION_META, POPULATION_SETTINGS}
    if POPULATION_META not in names or not all(name in known or name.startswith("part-") for name in names):
        raise InputError(
            f"{folder}: is something else than a population in shards, expected one to replace, or nothing"
        )
