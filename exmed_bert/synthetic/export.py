"""`generate --export`: the population as a dataset of another format, in the folder --output."""

from pathlib import Path
from tempfile import TemporaryDirectory

from exmed_bert.config import Resolved
from exmed_bert.console import OptionError
from exmed_bert.data.formats import FORMATS
from exmed_bert.files import check_writable
from exmed_bert.settings import GenerateSettings
from exmed_bert.staging import staged_folder
from exmed_bert.synthetic.population_file import write_population
from exmed_bert.synthetic.summary import Summary


def check(settings: GenerateSettings, name: str) -> None:
    """Refuse an export that cannot be written, before any patient is made.

    Raises:
        InputError: the folder cannot be written.
        OptionError: --output is a file's name, or shards are asked for too.
    """
    folder = settings.output
    if settings.shards is not None:
        raise OptionError(f"--export {name}: cannot be combined with --shards, which are files of our own format")
    if folder.name.lower().endswith(FORMATS):
        raise OptionError(f"--export: --output {folder} names a file, expected a folder such as data/synthetic_{name}")
    check_writable(folder.parent)


def write_export(resolved: Resolved[GenerateSettings], name: str) -> tuple[Summary, Path, Path]:
    """Generate a population and export it; return its summary, and the files of its description and of the settings.

    Patients go through a file of our own, so that the export is what the conversion makes of that.

    Args:
        resolved: the settings.
        name: of the format.

    Raises:
        InputError: the folder cannot be written or holds something else, or a worker process was killed.
    """
    from exmed_bert.data.export.provenance import provenance_file
    from exmed_bert.data.export.registry import EXPORTERS  # with packages that nothing else needs
    from exmed_bert.data.export.run import with_progress
    from exmed_bert.data.patient_input import PatientInput

    settings = resolved.settings
    folder, exporter = settings.output, EXPORTERS[name]
    settings_path = folder.with_name(f"{folder.name}.settings.json")
    with staged_folder(folder, exporter.check_replaceable) as staged:
        with TemporaryDirectory(prefix=".patients", dir=staged.parent) as work:
            file = Path(work) / "patients.parquet"
            summary = write_population(settings, file)
            source = PatientInput([file])
            exporter.write(staged, folder.name, with_progress(source), source.origin)
        resolved.save(staged.with_name(settings_path.name))
    return summary, provenance_file(folder) or folder, settings_path
