"""Step 2: from patients to the training and validation datasets."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np

from exmed_bert import __version__, console, stores
from exmed_bert.codes import CodeKey
from exmed_bert.codes.rare_codes import stand_ins
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data import counting
from exmed_bert.data.assembly import refuse_duplicates
from exmed_bert.data.conversion_counts import Conversion
from exmed_bert.data.coverage import no_known_codes
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.first_pass import (
    SPLITS,
    Part,
    PartCounts,
    PartResult,
    hashes_path,
    makes_cuts,
    piece_path,
    read_part,
    takes_codes,
)
from exmed_bert.data.masking import Masking
from exmed_bert.data.output_place import place_of
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.pieces import ColumnKinds
from exmed_bert.data.reading_report import reading_facts
from exmed_bert.data.second_pass import ShardTask, encode, write_encoded
from exmed_bert.data.shards import MadeShard, fill_folder, open_dataset
from exmed_bert.data.static_columns import declared
from exmed_bert.data.tokenizer import FinalIds, final_ids
from exmed_bert.data.value_coding import Cuts, ValueCoding, ValueCounts, cut_points
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary, in_order
from exmed_bert.data.vocabulary_file import vocabulary_from
from exmed_bert.files import make_folder
from exmed_bert.parallel import Pace, engine, unordered_map
from exmed_bert.settings import ConvertSettings
from exmed_bert.staging import atomic_write, save_tensors, staged_files
from exmed_bert.work_folder import work_folder

# What changes nothing of the result: a conversion that was killed goes on when these change.
_NOT_IDENTITY = {"workers", "scheduler"}

P = TypeVar("P", bound=PurePath)


def output_paths(output: P, split: str) -> dict[str, P]:
    """Return the file, or folder of shards, of each split that is to be written.

    >>> {split: path.name for split, path in output_paths(Path("synthetic.pt"), "all").items()}
    {'train': 'synthetic_train.pt', 'val': 'synthetic_val.pt'}
    """
    stem = _stem(output)
    return {name: stem.with_name(f"{stem.name}_{name}.pt") for name in SPLITS if split in ("all", name)}


def convert(
    settings: ConvertSettings, beside: Callable[[Conversion, Path], Collection[str]] = lambda result, folder: ()
) -> Conversion:
    """Read, validate, encode and split the patients; write the datasets, all of them whole or none.

    Args:
        settings: of the conversion.
        beside: writes what belongs to the result into a folder whose files are put in place with the datasets; returns
            names of files that go unless there are new ones.

    Raises:
        InputError: the input is wrong, a split would be empty, or the output is in a store; `run` takes it there.
    """
    output = stores.local(settings.output)
    paths = output_paths(output, settings.split)
    make_folder(output.parent)
    source = PatientInput(settings.input, settings, declared(settings.static_columns))
    source.announce()
    with engine(settings.scheduler, settings.workers), _work_folder(output, settings, source) as work:
        source.today = _first_day(work, source.today)
        results = _first_pass(settings, source, work)
        source.take_digests([result.digests for result in results])
        counts = PartCounts()
        for result in results:
            counting.add(counts, result.counts)
        read = np.array([result.read for result in results]).sum(axis=0)
        source.take_counts(counts.reading, counts.translation, (int(read[0]), int(read[1])))
        source.check_any()
        source.warn()
        refuse_duplicates(source, np.concatenate([np.load(hashes_path(work, r.number)) for r in results]))
        _check_left(settings, source, counts, results, paths)
        vocabulary, rare = _vocabulary(settings, results)
        if any(result.values for result in results):
            vocabulary = vocabulary.with_cuts(_cuts(settings, results))
        final = {result.number: final_ids(result.keys, result.entities, vocabulary, rare) for result in results}
        info = _info(settings, source, vocabulary)
        tasks = {
            split: _shard_tasks(settings, work, split, results, final, info, any(rare.values())) for split in paths
        }
        in_shards = any(len(of_split) > 1 for of_split in tasks.values()) or any(p.is_dir() for p in paths.values())
        obsolete: list[str] = []
        whole = [path.name for path in paths.values()] if in_shards else []
        with staged_files(output.parent, whole=whole, obsolete=obsolete) as staged:
            write = _write_shards if in_shards else _write_files
            datasets = write(settings, work, tasks, {split: staged / path.name for split, path in paths.items()})
            obsolete.extend(beside(Conversion(source, datasets, paths, counts, rare), staged))
            if in_shards:
                datasets.clear()  # closes their files, which can be moved everywhere then
    datasets = datasets or {split: open_dataset(path) for split, path in paths.items()}
    return Conversion(source, datasets, paths, counts, rare)


def run(resolved: Resolved[ConvertSettings]) -> None:
    """Convert or export, with the settings beside what is written, and print what was made and left out.

    Raises:
        InputError: as `convert` does, or another process is writing there.
    """
    settings = resolved.settings
    if settings.export is not None:
        from exmed_bert.data.export.run import export_patients  # with packages that nothing else needs

        export_patients(resolved, settings.export)
        return
    from exmed_bert.data.conversion_report import print_conversion, write_page  # with slow plots

    datasets = output_paths(settings.output, settings.split).values()
    with place_of(settings.output, list(datasets)) as place:
        here = settings.model_copy(update={"output": place.output})
        name = _stem(place.output).name

        def beside(result: Conversion, folder: Path) -> list[str]:
            resolved.save(folder / f"{name}.settings.json", reading=reading_facts(result.source))
            return write_page(result, here, folder, name)

        result = convert(here, beside)
        place.publish()
        print_conversion(result, here, place.target.parent, name)


def _stem(output: P) -> P:
    return output.with_suffix("") if output.suffix == ".pt" else output


def _work_folder(output: Path, settings: ConvertSettings, source: PatientInput) -> AbstractContextManager[Path]:
    """Return the folder of what the passes have made so far: that of a killed conversion of the same, or a new one."""
    stem = _stem(output)
    identity = {
        "version": __version__,
        "settings": settings.model_dump(mode="json", exclude=_NOT_IDENTITY),
        "files": source.source.identity(),
    }
    return work_folder(make_folder(stem.parent).absolute() / f".{stem.name}.converting", identity, done="part-*.json")


def _first_day(work: Path, today: date) -> date:
    """Return the day on which the work in a folder began: a conversion that was killed goes on with that one."""
    path = work / "today"
    try:
        return date.fromisoformat(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        with atomic_write(path) as part:
            part.write_text(today.isoformat(), encoding="utf-8")
        return today


def _first_pass(settings: ConvertSettings, source: PatientInput, work: Path) -> list[PartResult]:
    """Read the parts of the input that were not read before, those with values a second time, with cut points."""
    if not makes_cuts(settings):
        by_range = settings.lab_values == "range" and takes_codes(settings)
        return _read_parts(settings, source, work, ValueCoding(by_range=True) if by_range else None)
    results = _read_parts(settings, source, work, None)
    if all(result.is_coded for result in results) and not any(result.values for result in results):
        return results
    return _read_parts(settings, source, work, ValueCoding(_cuts(settings, results)))


def _cuts(settings: ConvertSettings, results: Sequence[PartResult]) -> Cuts:
    """Return the cut points of the values of all parts; those of --vocab-from stay."""
    values: ValueCounts = Counter()
    for result in results:
        values.update(result.values)
    known = {} if settings.vocab_from is None else vocabulary_from(settings.vocab_from).cuts
    return {**cut_points(values, settings.lab_bins), **known}


def _read_parts(
    settings: ConvertSettings, source: PatientInput, work: Path, values: ValueCoding | None
) -> list[PartResult]:
    sources = source.parts()
    if settings.scheduler is not None:  # whose workers may stand in other folders
        settings, sources = settings.with_absolute_paths(), [part.absolute() for part in sources]
    parts = [Part(number, part, settings, work, source.today, values) for number, part in enumerate(sources)]
    done: dict[int, PartResult] = {}
    for part in parts:
        try:
            result = PartResult.load(part.result)
        except (OSError, KeyError, TypeError, ValueError):
            part.result.unlink(missing_ok=True)
            continue
        if result.is_coded or values is None:
            done[part.number] = result
    missing = [part for part in parts if part.number not in done]
    before = sum(result.read[0] for result in done.values())
    bar = console.progress(label="Converting", unit=" patients", initial=before)
    pace = Pace()
    here = settings.workers == 1 and settings.scheduler is None  # so the bar can move with each chunk
    read = partial(read_part, progress=bar.update) if here else read_part
    for _, result in unordered_map(read, missing, settings.workers):
        done[result.number] = result
        if not here:
            bar.update(result.read[0])
        pace.note(result.worker, result.read[0], result.seconds)
        if len(parts) > 1:
            bar.set_postfix_str(f"{len(done)} of {len(parts)} files{pace}")
    bar.close()
    return [done[part.number] for part in parts]


def _check_left(
    settings: ConvertSettings,
    source: PatientInput,
    counts: PartCounts,
    results: Sequence[PartResult],
    paths: Mapping[str, Path],
) -> None:
    """Refuse an input of which nothing is left for a split, or none of whose codes is known."""
    summary = counts.tokens
    unmapped = counts.translation.unmapped
    if (summary.patients or unmapped) and summary.events.read == summary.unknown_codes.total():
        raise no_known_codes(source, unmapped, summary.unknown_codes, counts.reading.families)
    for split in paths:
        if not sum(sum(result.kept[split]) for result in results):
            found = [f"{count} patients {reason}" for reason, count in counts.excluded.items()]
            found.append(
                f"{summary.patients} patients, {summary.too_short} of them with fewer than "
                f"{settings.min_observations} codes"
            )
            from_input = settings.split_from == "input"
            raise InputError(
                f"{source}: no patient is left for the {split} split: {', '.join(found)}; use more patients, or change "
                f"{'--split-from' if from_input else '--train-ratio'} or --min-observations"
            )
    if not any(any(result.code_counts) for result in results):
        raise InputError(
            f"{source}: of {summary.patients - summary.too_short:,} patients with at least "
            f"{settings.min_observations} codes none has one that is known, of the latest {settings.max_length}"
        )


def _vocabulary(
    settings: ConvertSettings, results: Sequence[PartResult]
) -> tuple[CodeVocabulary, dict[CodeKey, CodeKey | None]]:
    """Return the vocabulary, known codes and then others in use, and what stands for codes that are too rare."""
    known = CodeVocabulary.build([]) if settings.vocab_from is None else vocabulary_from(settings.vocab_from)
    counts: Counter[CodeKey] = Counter()
    for result in results:
        counts.update({key: count for key, count in zip(result.keys, result.code_counts, strict=True) if count})
    known_keys = set(known.keys)
    new = {key: count for key, count in counts.items() if key not in known_keys}
    rare: dict[CodeKey, CodeKey | None] = {}
    if settings.min_code_count > 1:
        rare = stand_ins(new, settings.min_code_count, settings.rare_codes == "roll-up")
    in_use = {key for key in new if key not in rare} | {key for key in rare.values() if key is not None}
    vocabulary = known.extended(in_order(in_use - known_keys))
    if len(vocabulary) == len(SPECIAL_TOKENS):
        raise InputError(f"--min-code-count {settings.min_code_count}: no code occurs as often")
    return vocabulary, rare


def _info(settings: ConvertSettings, source: PatientInput, vocabulary: CodeVocabulary) -> DatasetInfo:
    """Return the description of the datasets, but for the split."""
    return DatasetInfo(
        split="all",
        max_length=settings.max_length,
        age_unit=settings.age_unit,
        masking=Masking(
            mode="dynamic" if settings.dynamic_masking else "static",
            probability=settings.masked_lm_prob,
            max_masked=settings.max_masked,
            seed=settings.seed,
        ),
        vocabulary=vocabulary,
        static_columns=source.static_columns,
        novel_codes=source.novel_codes,
        input_fingerprint=source.origin.fingerprint,
        split_seed=settings.seed,
        train_ratio=settings.train_ratio,
        split_from=settings.split_from,
        min_cell=None if source.generated else source.cells.limit,
    )


def _write_files(
    settings: ConvertSettings, work: Path, tasks: Mapping[str, Sequence[ShardTask]], paths: Mapping[str, Path]
) -> dict[str, PatientDataset]:
    """Write the datasets as a file each; return them."""
    datasets = {split: encode(of_split[0]) for split, of_split in tasks.items()}
    for split, dataset in datasets.items():
        save_tensors(paths[split], dataset.to_dict())
    return datasets


def _write_shards(
    settings: ConvertSettings, work: Path, tasks: Mapping[str, Sequence[ShardTask]], paths: Mapping[str, Path]
) -> dict[str, PatientDataset]:
    """Write the datasets as a folder of shards each; return them as they are opened there."""
    every = [task for of_split in tasks.values() for task in of_split]
    made: dict[int, MadeShard] = {}
    pace = Pace()
    bar = console.progress(total=sum(task.patients for task in every), label="Encoding", unit=" patients")
    for number, shard in unordered_map(write_encoded, every, settings.workers):
        made[number] = shard
        pace.note(shard.worker, shard.shard.patients, shard.seconds)
        bar.set_postfix_str(f"{len(made)} of {len(every)} shards{pace}")
        bar.update(shard.shard.patients)
    bar.close()
    in_order = (made[number] for number in range(len(every)))
    for split, of_split in tasks.items():
        paths[split].mkdir()
        fill_folder(paths[split], of_split[0].info, work / split, list(islice(in_order, len(of_split))))
    return {split: open_dataset(path) for split, path in paths.items()}


def _shard_tasks(
    settings: ConvertSettings,
    work: Path,
    split: str,
    results: Sequence[PartResult],
    final: Mapping[int, FinalIds],
    info: DatasetInfo,
    repeats: bool,
) -> list[ShardTask]:
    """Divide the pieces of a split into shards, in their order: a shard is full with the piece that fills it."""
    kinds = ColumnKinds()
    for result in results:
        counting.add(kinds, result.kinds[split])
    folder = make_folder(work / split)
    groups: list[list[tuple[int, Path]]] = []
    sizes: list[int] = []
    room = 0
    for result in results:
        for chunk, kept in enumerate(result.kept[split]):
            if room <= 0:
                groups.append([])
                sizes.append(0)
                room = settings.shard_size
            groups[-1].append((result.number, piece_path(work, result.number, chunk, split)))
            sizes[-1] += kept
            room -= kept
    own = replace(info, split=split)
    return [
        ShardTask(
            folder / f"shard-{number:05}.pt",
            patients,
            pieces,
            {part: final[part] for part, _ in pieces},
            repeats,
            own,
            kinds,
        )
        for number, (pieces, patients) in enumerate(zip(groups, sizes, strict=True))
    ]
