"""Page of a patient: the risk as it develops, what moves it, and all visits."""

from datetime import timedelta

import numpy as np

from exmed_bert.analysis.patient.plots import DRAWINGS, Drawn, Event
from exmed_bert.analysis.patient.risks import PatientRisks, percent
from exmed_bert.codes import CodeKey, code_system
from exmed_bert.data.patient import EPOCH
from exmed_bert.reference.names import name_of, plain_names
from exmed_bert.reporting.content import Caution, Cell, Report, ReportSection, Style, Table
from exmed_bert.reporting.plotting import draw_plots


def patient_page(found: PatientRisks, source: str, model: str) -> Report:
    """Return the page of a patient.

    Args:
        found: the patient with risks and attributions.
        source: where the patient comes from.
        model: where the model lies.
    """
    events = _events(found)
    patient, first, last = found.patient, found.risks[0], found.risks[-1]
    facts = [
        ("patient", str(patient.patient_ids[0])),
        ("patients of", source),
        ("model", model),
        ("outcome", found.outcome),
        ("birth year", str(patient.birth_years[0])),
        *((name, str(values[0] or "unknown")) for name, values in patient.static.items()),
        ("visits", f"{found.visits:,}, with a prediction {len(found.days):,}"),
    ]
    banner = "This page holds a patient: it is part of their record. Only who may see the record may see it."
    if found.generated:
        banner = "This page holds a generated patient, who does not exist. That of a real one is part of their record."
    lead = f"{found.outcome}: a risk of {percent(last)} at the visit of {_date(found.days[-1])}"
    lead += f", after {percent(first)} at that of {_date(found.days[0])}." if len(found.days) > 1 else "."
    drawn = draw_plots(DRAWINGS, Drawn(events, found.days, found.risks))
    return Report(
        title=f"Patient {patient.patient_ids[0]}",
        facts=facts,
        notes=[Caution(banner)],
        sections=[_risk(found), _reasons(found, events), _visits(found, events)],
        plots=drawn,
        lead=lead,
    )


def _events(found: PatientRisks) -> list[Event]:
    """Return the patient's events in order of day, as the tables and plots show them."""
    columns, names = found.patient.events, plain_names() if found.generated else {}
    keys: set[CodeKey] = {columns.table[code] for code in columns.codes.tolist()}
    called = {key: names.get(key) or name_of(*key) for key in keys}
    events = []
    for place in np.argsort(columns.days, kind="stable").tolist():
        day, key = int(columns.days[place]), columns.table[int(columns.codes[place])]
        kind = code_system(key[0]).events
        events.append(Event(day, kind, key[1], called[key], found.attributions.get((day, key))))
    return events


def _risk(found: PatientRisks) -> ReportSection:
    rows: list[list[Cell]] = []
    for place, (day, risk) in enumerate(zip(found.days.tolist(), found.risks.tolist(), strict=True)):
        change = "–" if not place else f"{100 * (risk - found.risks[place - 1]):+.2f}"
        rows.append([_date(day), percent(risk), change])
    table = Table(["visit", "risk", "change, points"], rows, caption="Risk at each visit")
    note = (
        "At each visit the model is given what was known by its end, nothing later. Visits without a prediction come "
        "before there are enough codes, or after the outcome."
    )
    return ReportSection("risk", "The risk as it develops", text=[note], plots=["risk"], folded=[table])


def _reasons(found: PatientRisks, events: list[Event]) -> ReportSection:
    sums: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.attribution is not None:
            sums.setdefault((event.code, event.name, event.kind), []).append(event.attribution)
    ranked = sorted(sums.items(), key=lambda item: -abs(sum(item[1])))
    rows: list[list[Cell]] = [
        [code, name, kind, f"{len(values)}", f"{sum(values):+.3f}", f"{np.exp(sum(values)):.2f}"]
        for (code, name, kind), values in ranked
    ]
    columns = ["code", "name", "kind", "visits", f"log {found.scale}", f"times the {found.scale}"]
    text = (
        f"What each code adds to the log {found.scale} at the visit of {_date(found.days[-1])}, in comparison with the "
        "same history with all codes hidden: integrated gradients from MASK at every code. They say what moves the "
        "model, not what causes the outcome."
    )
    notes = [] if found.complete else ["The contributions miss the difference that they add up to by more than 1 %."]
    table = Table(columns, rows, {0: "code", 1: "text", 2: "word"}, caption="Codes by what they add")
    return ReportSection("reasons", "What moves it", text=[text], tables=[table], notes=notes)


def _visits(found: PatientRisks, events: list[Event]) -> ReportSection:
    risk = {day: percent(value) for day, value in zip(found.days.tolist(), found.risks.tolist(), strict=True)}
    rows: list[list[Cell]] = []
    for e in events:
        added = "–" if e.attribution is None else f"{e.attribution:+.3f}"
        rows.append([_date(e.day), e.code, e.name, e.kind, added, risk.get(e.day, "–")])
    columns = ["visit", "code", "name", "kind", f"log {found.scale}", "risk by its end"]
    styles: dict[int, Style] = {0: "word", 1: "code", 2: "text", 3: "word"}
    table = Table(columns, rows, styles, caption="All events")
    text = "Points stand for events: orange raises the risk at the last prediction, blue lowers it, gray has no part."
    return ReportSection("visits", "Visits", text=[text], plots=["timeline"], tables=[table])


def _date(day: int) -> str:
    return (EPOCH + timedelta(days=int(day))).isoformat()
