"""`convert --export`: the patients of --input as a dataset of another format, in the folder --output."""

from collections.abc import Iterable, Iterator

import numpy as np

from exmed_bert import console, stores
from exmed_bert.config import Resolved
from exmed_bert.data.export.registry import EXPORTERS
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.reading_report import date_rows, reading_facts
from exmed_bert.data.static_columns import declared
from exmed_bert.locks import held
from exmed_bert.settings import ConvertSettings
from exmed_bert.staging import staged_folder
from exmed_bert.startup import called


def export_patients(resolved: Resolved[ConvertSettings], name: str) -> None:
    """Export the patients, save the settings beside the folder, and print what was written and left out.

    Args:
        resolved: the settings of the conversion.
        name: of the format.

    Raises:
        InputError: the patients cannot be read or written, or one occurs twice.
    """
    from exmed_bert.data.assembly import refuse_duplicates  # imports torch, which the generator does without

    settings = resolved.settings
    folder = stores.local(settings.output)
    folder = folder.with_suffix("") if folder.suffix == ".pt" else folder
    exporter = EXPORTERS[name]
    with held(folder, called("convert")):
        source = PatientInput(settings.input, settings, declared(settings.static_columns))
        with staged_folder(folder, exporter.check_replaceable) as staged:
            hashes: list[np.ndarray] = []
            counts = exporter.write(staged, folder.name, _noted(with_progress(source), hashes), source.origin)
            refuse_duplicates(source, np.concatenate(hashes))
            settings_path = staged.with_name(f"{folder.name}.settings.json")
            resolved.save(settings_path, reading=reading_facts(source))
    excluded, cells = source.summary.excluded, source.cells
    console.table(
        f"Exported {source} to {folder}",
        [
            ("patients read", cells.total([counts.patients, *excluded.values()])),
            *((f"excluded: {reason}", cells.count(count)) for reason, count in excluded.items()),
            ("patients", cells.count(counts.patients)),
            *date_rows(source.summary, settings.keep_implausible_dates, cells),
            ("coded events", cells.count(counts.events)),
            ("rows, with birth, sex and such", cells.count(counts.rows)),
            ("distinct codes", counts.codes),
            ("files of rows", counts.files),
        ],
    )


def with_progress(source: PatientInput) -> Iterator[PatientColumns]:
    """Yield patients to an exporter, and show how many there are."""
    bar = console.progress(label="Exporting", unit=" patients")
    for patients in source.chunks():
        yield patients
        bar.update(len(patients))
    bar.close()


def _noted(chunks: Iterable[PatientColumns], hashes: list[np.ndarray]) -> Iterator[PatientColumns]:
    """Yield patients, whose hashes the list takes."""
    for patients in chunks:
        hashes.append(hash_patient_ids(patients.patient_ids))
        yield patients
