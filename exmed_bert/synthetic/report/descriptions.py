"""Descriptions of a population's histories, without targets: one function per comparison.

Some metrics have a published or modeled counterpart, which then stands beside them; for the others the report says
that there is none.
"""

import numpy as np

from exmed_bert.synthetic.report.findings import (
    BANDS,
    NO_REFERENCE,
    NO_TARGET,
    Column,
    Comparison,
    Findings,
    Metric,
    finite,
    part_of,
)
from exmed_bert.synthetic.report.histories import median
from exmed_bert.synthetic.report.measures import YEARS

BOUNDS = {"diagnoses": (3, 30), "prescriptions": (2, 40)}  # events of a generated patient
MOST_LISTED = 200  # codes outside the tables, of each system


def lengths(findings: Findings) -> Comparison:
    """Codes per visit, and codes and visits per patient."""
    rows = []
    for name, label in (
        ("codes per visit", "codes per visit"),
        ("visits", "visits per patient"),
        ("diagnoses", "diagnoses per patient"),
        ("prescriptions", "prescriptions per patient"),
    ):
        counts = findings.histories.lengths[name]
        total, cumulated = counts.sum(), np.cumsum(counts)
        if not total:
            continue
        tenth, ninth = (int(np.searchsorted(cumulated, share * total)) for share in (0.1, 0.9))
        mean = float(counts @ np.arange(len(counts)) / total)
        rows.append((label, int(total), mean, median(counts), tenth, ninth, int(np.flatnonzero(counts)[-1])))
    return Comparison(
        key="lengths",
        title="Lengths",
        text="Distinct codes of a visit, and visits, diagnoses and prescriptions of a patient. The tables hold no "
        "published value to compare this with.",
        source="none",
        columns=(
            Column("name", "Number of"),
            Column("counted", "Counted", "count"),
            Column("mean", "Mean", "number"),
            Column("median", "Median", "number"),
            Column("tenth", "10 % have at most", "count"),
            Column("ninth", "90 % have at most", "count"),
            Column("most", "Most", "count"),
        ),
        rows=rows,
        metrics=[
            Metric("codes_per_visit", "codes per visit, mean", rows[0][2] if rows else None, "number", NO_REFERENCE)
        ],
        series={"histograms": {name: _trimmed(counts) for name, counts in findings.histories.lengths.items()}},
    )


def bounds(findings: Findings) -> Comparison:
    """Patients whose history was changed by the bounds on its length, or ends up at one of them."""
    patients, histograms = findings.measures.patients, findings.histories.lengths
    rows: list[tuple[str, str, int | None, float | None]] = []
    for name, (fewest, most) in BOUNDS.items():
        counts = histograms[name]
        for label, n in (
            (f"fewer than {fewest} {name}", counts[:fewest].sum()),
            (f"exactly {fewest} {name}", counts[fewest]),
            (f"exactly {most} {name}", counts[most]),
            (f"more than {most} {name}", counts[most + 1 :].sum()),
        ):
            rows.append((label, "this file", int(n), part_of(n, patients)))
    said = findings.meta.get("bounds")
    for name, value in said.items() if isinstance(said, dict) else ():
        n = value if isinstance(value, int) and not isinstance(value, bool) else None
        rows.append((name if n is not None else f"{name}: {value}", "meta file", n, part_of(n, patients)))
    return Comparison(
        key="bounds",
        title="Bounds on the length of a history",
        text="A generated history has 3 to 30 diagnoses and 2 to 40 prescriptions, unless it is a realistic one. "
        "Patients at exactly such a number, and beyond it in a realistic file or one from elsewhere"
        + (", and how many the generator changed to stay within them, as its meta file says." if said else "."),
        source="none",
        columns=(
            Column("name", "Patients with"),
            Column("from", "Counted in"),
            Column("patients", "Patients", "count"),
            Column("share", "Share", "share"),
        ),
        rows=rows,
        metrics=[
            Metric(
                f"{name}_at_a_bound",
                f"patients at exactly {fewest} or {most} {name}",
                part_of(histograms[name][fewest] + histograms[name][most], patients),
                "share",
                NO_REFERENCE,
            )
            for name, (fewest, most) in BOUNDS.items()
        ],
    )


def prolonged_stay(findings: Findings) -> Comparison:
    """Labels of prolonged stay by age, and how far the tables' log odds tell them apart."""
    measures, histories = findings.measures, findings.histories
    model = histories.discrimination(measures.reference_year)
    labeled = measures.fold(histories.stays.sum(axis=1))  # (4, 2): without and with
    of_all, expected = labeled.sum(axis=0), float(np.nansum(model.share * labeled.sum(axis=1)))
    shares = [
        (band, int(counts.sum()), int(counts[1]), part_of(counts[1], counts.sum()), finite(share))
        for band, counts, share in zip(BANDS, labeled, model.share, strict=True)
    ]
    shares.append(
        ("all", int(of_all.sum()), int(of_all[1]), part_of(of_all[1], of_all.sum()), part_of(expected, of_all.sum()))
    )
    rows = [(*row, None if row[3] is None or row[4] is None else row[3] - row[4]) for row in shares]
    unlabeled = measures.patients - int(of_all.sum())
    note = "The log odds are recomputed from each patient's age and diagnoses."
    return Comparison(
        key="prolonged_stay",
        title="Prolonged length of stay",
        text="Share of the labeled patients with a prolonged stay, beside what the log odds of the tables imply for "
        "their ages and diagnoses. The area under the ROC curve is that of the log odds against the labels; what they "
        "could reach is the area if the labels were drawn from them."
        + (
            " These are realistic patients, whose label follows from their stays in hospital while observed: the log "
            "odds are those of five years, and raise the rate of stays."
            if "realistic" in findings.meta
            else ""
        )
        + (f" {findings.cells.show(unlabeled)} patients carry no label." if unlabeled else ""),
        source="tables/plos.csv: estimates of our own",
        columns=(
            Column("band", "Age"),
            Column("patients", "Labeled", "count"),
            Column("stays", "Prolonged", "count"),
            Column("generated", "This file", "share"),
            Column("modeled", "By the log odds", "share"),
            Column("error", "Difference", "points"),
        ),
        rows=rows,
        metrics=[
            Metric("plos_share", "patients with a prolonged stay", rows[-1][3], "share", NO_REFERENCE),
            Metric(
                "plos_auroc",
                "prolonged stay, AUROC of the log odds",
                finite(model.auroc),
                "number",
                NO_REFERENCE,
                note=note,
            ),
            Metric(
                "plos_achievable",
                "prolonged stay, AUROC that the log odds could reach",
                finite(model.achievable),
                "number",
                NO_REFERENCE,
                note="Expected under the model, whatever the labels are.",
            ),
        ],
    )


def unlisted(findings: Findings) -> Comparison:
    """Novel codes, and codes that the tables do not hold."""
    measures = findings.measures
    events, novel = measures.events.total(), measures.novel.total()
    outside = [
        (code, system.upper(), count, part_of(count, measures.events[system]))
        for system, counts in measures.outside.items()
        for code, count in counts.most_common(MOST_LISTED)
    ]
    outside.sort(key=lambda row: -row[2])
    distinct = sum(map(len, measures.outside.values()))
    without = sum(counts.total() for counts in measures.outside.values())
    requested = (findings.meta.get("options") or {}).get("novel_prob")
    metrics = [Metric("outside", "events of codes outside the tables", part_of(without, events), "share", NO_REFERENCE)]
    if findings.meta:
        note = f"The generator was to make {requested:.2%}." if isinstance(requested, int | float) else ""
        metrics.insert(
            0, Metric("novel", "events of a novel code", part_of(novel, events), "share", NO_TARGET, note=note)
        )
    return Comparison(
        key="unlisted",
        title="Novel codes and codes outside the tables",
        text=(
            "Novel codes are those that the meta file names; each counts as the code that it stands for in all other "
            "sections. "
            if findings.meta
            else "There is no meta file that says which codes are novel. "
        )
        + f"The {distinct:,} codes that the tables do not hold count in no other section but visits and lengths"
        + (f"; the {MOST_LISTED} most frequent of each system are listed." if distinct > MOST_LISTED else "."),
        source="none",
        columns=(
            Column("code", "Code"),
            Column("system", "System"),
            Column("events", "Events", "count"),
            Column("share", "Share of the system's events", "share"),
        ),
        rows=outside,
        metrics=metrics,
    )


def last_seen(findings: Findings) -> Comparison:
    """Patients without any event in the last calendar year."""
    measures, year = findings.measures, findings.measures.last_year - YEARS.start
    people = measures.fold(measures.by_birth_year["people"].sum(axis=1))
    before = measures.fold(findings.histories.last_seen[:year].sum(axis=0))
    rows = [(band, int(n), int(gone), part_of(gone, n)) for band, n, gone in zip(BANDS, people, before, strict=True)]
    return Comparison(
        key="last_seen",
        title="Patients without an event in the last year",
        text=f"Patients whose last event lies before {measures.last_year}, the last calendar year that the file "
        "covers: they died, left, or had no visit. A file does not say which, so there is no published value to "
        "compare this with.",
        source="none",
        columns=(
            Column("band", "Age"),
            Column("patients", "Patients", "count"),
            Column("gone", "Last seen before", "count"),
            Column("share", "Share", "share"),
        ),
        rows=rows,
        metrics=[
            Metric(
                "last_seen_before",
                f"patients whose last event lies before {measures.last_year}",
                part_of(before.sum(), people.sum()),
                "share",
                NO_REFERENCE,
            )
        ],
    )


def _trimmed(counts: np.ndarray) -> list[int]:
    """Return a histogram without the zeros at its end."""
    filled = np.flatnonzero(counts)
    return counts[: filled[-1] + 1].tolist() if len(filled) else []
