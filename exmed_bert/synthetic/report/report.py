"""Population report as a whole: count a file of patients, compare it, write page, metrics and plots."""

from datetime import timedelta
from typing import Any

from exmed_bert import codes, console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.patient import EPOCH
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.reading_report import date_rows
from exmed_bert.files import check_writable
from exmed_bert.locks import held
from exmed_bert.reference.tables import load
from exmed_bert.reporting.content import Report
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.reporting.small_cells import MinCell, plain_json
from exmed_bert.settings import ReportSettings
from exmed_bert.staging import write_json
from exmed_bert.startup import called
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED
from exmed_bert.synthetic.report.comparison import COMPARISONS
from exmed_bert.synthetic.report.findings import Comparison, Findings
from exmed_bert.synthetic.report.histories import Histories
from exmed_bert.synthetic.report.measures import Measures
from exmed_bert.synthetic.report.page import sections, shown, target
from exmed_bert.synthetic.report.plots import DRAWINGS, draw
from exmed_bert.synthetic.report.small_cells import shareable

FORMAT, VERSION = "exmed-bert-patient-report", 2
TABLES = "exmed_bert/reference/tables"
JSON = "report.json"


def check(settings: ReportSettings) -> None:
    """Refuse what can be refused before any patient is read.

    Raises:
        InputError: the input is missing or of an unknown kind, or the folder cannot be written.
    """
    PatientInput(settings.input, settings)
    check_writable(settings.output_dir)


def run(resolved: Resolved[ReportSettings]) -> None:
    """Read the patients as a stream, compare them, and write the report, all of it or nothing.

    Raises:
        InputError: the patients cannot be read or hold no event, or the folder cannot be written, or another process
            is writing it.
    """
    settings = resolved.settings
    check(settings)
    with held(settings.output_dir, called("report")):
        _report(settings)


def _report(settings: ReportSettings) -> None:
    patients = PatientInput(settings.input, settings)
    findings = count(patients)
    comparisons = [shareable(compare(findings), findings) for compare in COMPARISONS]
    notes = remarks(findings)
    title = f"{patients.name}: comparison with published values"
    dates = date_rows(patients.summary, settings.keep_implausible_dates, findings.cells)
    described = facts(findings) + [(name, str(count)) for name, count in dates]
    report = Report(title, described, notes, sections(comparisons), draw(comparisons))
    with report_files(settings.output_dir, report, DRAWINGS) as staged:
        write_json(staged / JSON, content_of(findings, comparisons, notes))

    for note in notes:
        console.warn(note)
    console.table("Patients", described)
    console.table(
        "Compared with published values",
        [
            (metric.name, f"{shown(metric.value, metric.kind)}, target {target(metric)}: {metric.verdict}")
            for comparison in comparisons
            for metric in comparison.metrics
            if metric.target is not None
        ],
    )
    console.table(
        "Written",
        [
            ("page", settings.output_dir / PAGE),
            ("metrics", settings.output_dir / JSON),
            ("plots", f"{len(report.plots)} .png beside them"),
        ],
    )


def count(source: PatientInput) -> Findings:
    """Count patients; memory does not grow with them.

    Raises:
        InputError: the file cannot be read, or its patients have no event at all.
    """
    origin, tables = source.origin, load()
    meta = origin.meta if origin.generated else {}
    sources = {code: entry["source"] for code, entry in meta.get("novel_codes", {}).items()}
    measures, histories = Measures(tables, sources), Histories(tables)
    with console.progress(label="Counting", unit=" patients") as bar:
        for patients in source.chunks():
            diagnoses, drugs = measures.code(patients)
            measures.add_coded(patients, diagnoses, drugs)
            histories.add(patients, diagnoses, drugs)
            bar.update(len(patients))
    if measures.last_day is None:
        dropped = ", ".join(source.summary.implausible_events)
        why = f"; events were dropped {dropped}; --keep-implausible-dates keeps them" if dropped else ""
        raise InputError(f"{source}: no patient has a diagnosis or a prescription, expected at least one{why}")
    return Findings(str(source), measures, histories, meta, source.cells)


def facts(findings: Findings) -> list[tuple[str, str]]:
    """Return names and values that describe the file and the tables."""
    measures, cells = findings.measures, findings.cells
    rows = [
        ("file", findings.source),
        ("patients", cells.show(measures.patients)),
        ("diagnoses", cells.show(measures.events[codes.ICD10CM])),
        ("prescriptions", cells.show(measures.events[codes.ATC])),
        ("first and last event", f"{_day(findings.histories.first_day, cells)} to {_day(measures.last_day, cells)}"),
        ("compared with", f"{TABLES}, digest {findings.tables.digest}; SOURCES.md there explains the short names"),
    ]
    if findings.meta:
        options = findings.meta.get("options") or {}
        said = ", ".join(f"{name} {value}" for name, value in {"seed": findings.meta.get("seed"), **options}.items())
        rows.append(("generated with", said))
    return rows


def remarks(findings: Findings) -> list[str]:
    """Return notes that a reader needs before the verdicts."""
    measures, meta, cells = findings.measures, findings.meta, findings.cells
    notes, patients = [cells.note] if cells.limit else [], cells.show(measures.patients)
    first, last = findings.histories.first_day, measures.last_day
    years = 0.0 if first is None or last is None else (last - first + 1) / YEAR
    if abs(years - YEARS_OBSERVED) > 0.5:
        notes.append(
            f"The events span {years:.1f} years. The published shares are within {YEARS_OBSERVED} years, so "
            "prevalence, P(drug | diagnosis) and users within five years cannot be compared as they are."
        )
    histories = findings.histories
    observed = histories.observed_days / max(histories.periods, 1) / YEAR
    if histories.periods > cells.limit and observed < YEARS_OBSERVED - 0.5:
        notes.append(
            f"The patients are observed for {observed:.1f} years on average, as their records say. What is published "
            f"within {YEARS_OBSERVED} years, and visits per year, can be compared only with patients who are observed "
            "throughout."
        )
    if meta.get("tables") not in (None, findings.tables.digest):
        notes.append(f"The file was generated from other tables (digest {meta['tables']}) than it is compared with.")
    said = (meta.get("counts") or {}).get("patients", measures.patients)
    if said != measures.patients:
        notes.append(f"The meta file tells of {said} patients, the file holds {patients}: it may be another's.")
    if measures.unknown_sex:
        notes.append(
            f"{cells.show(measures.unknown_sex)} of {patients} patients have no sex that is understood; comparisons "
            "by sex leave them out."
        )
    return notes


def content_of(findings: Findings, comparisons: list[Comparison], notes: list[str]) -> dict[str, Any]:
    """Return the content of report.json."""
    measures, cells = findings.measures, findings.cells
    content = {
        "format": FORMAT,
        "version": VERSION,
        "input": {
            "file": findings.source,
            "patients": cells.value(measures.patients),
            "diagnoses": cells.value(measures.events[codes.ICD10CM]),
            "prescriptions": cells.value(measures.events[codes.ATC]),
            "first_day": _day(findings.histories.first_day, cells),
            "last_day": _day(measures.last_day, cells),
            "reference_year": measures.reference_year,
            "last_whole_year": measures.last_year,
            "unknown_sex": cells.value(measures.unknown_sex),
            "seed": findings.meta.get("seed"),
            "options": findings.meta.get("options"),
            "tables": findings.meta.get("tables"),
        },
        "tables": {"name": TABLES, "digest": findings.tables.digest},
        "notes": notes,
        "metrics": {
            metric.key: {"comparison": comparison.key, **plain_json(metric)}
            for comparison in comparisons
            for metric in comparison.metrics
        },
        "comparisons": {
            comparison.key: {
                "title": comparison.title,
                "text": comparison.text,
                "source": comparison.source,
                "columns": comparison.columns,
                "rows": [
                    dict(zip((column.key for column in comparison.columns), row, strict=True))
                    for row in comparison.rows
                ],
                "series": comparison.series,
            }
            for comparison in comparisons
        },
    }
    return plain_json(content)


def _day(day: int | None, cells: MinCell) -> str | None:
    """Return a day, or its year alone where counts are hidden: the day is that of one patient."""
    found = None if day is None else (EPOCH + timedelta(days=day)).isoformat()
    return found[:4] if found and cells.limit else found
