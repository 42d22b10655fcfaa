"""Step 1 as a whole: generate the patients, write a file, shards or an export, and summarize them."""

from pathlib import Path

from exmed_bert import cluster, console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.formats import POPULATION_META, POPULATION_SETTINGS, file_format
from exmed_bert.files import check_writable_file, read_json
from exmed_bert.locks import held
from exmed_bert.parallel import engine
from exmed_bert.reference import recent as recent_codes
from exmed_bert.reference.tables import load
from exmed_bert.settings import GenerateSettings
from exmed_bert.staging import staged_files
from exmed_bert.startup import called
from exmed_bert.synthetic import export, shards
from exmed_bert.synthetic.population import novel_codes
from exmed_bert.synthetic.population_file import beside, write_population
from exmed_bert.synthetic.summary import Summary, population


def check(settings: GenerateSettings) -> None:
    """Refuse a file or shards that cannot be written, before any patient is made.

    Raises:
        InputError: its folder cannot be written or its format is unknown.
        OptionError: options contradict each other.
    """
    cluster.check(settings.scheduler)
    if settings.export is not None:
        export.check(settings, settings.export)
        return
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
        if settings.export is not None:
            summary, meta_path, settings_path = export.write_export(resolved, settings.export)
        elif settings.shards is not None:
            summary = shards.write_shards(resolved, settings.shards)
            meta_path, settings_path = settings.output / POPULATION_META, settings.output / POPULATION_SETTINGS
        else:
            summary, meta_path, settings_path = _write_file(resolved)

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
    meta_path, settings_path = beside(settings.output, "meta"), beside(settings.output, "settings")
    replaced = _other_patients(settings, meta_path)
    with staged_files(settings.output.parent) as staged:
        summary = write_population(settings, staged / settings.output.name)
        resolved.save(staged / settings_path.name)
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
