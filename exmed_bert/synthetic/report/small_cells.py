"""Comparisons as they may be shared: no count of few patients, no value of so few, and nothing that tells of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from exmed_bert.reporting.small_cells import Count, as_count
from exmed_bert.synthetic.people import YEARS_OBSERVED
from exmed_bert.synthetic.report.findings import Comparison, Findings, Metric, part_of

# What is computed from a row's counts.
_VALUES = {
    "generated",
    "generated_1yr",
    "share",
    "mean",
    "median",
    "expected",
    "deviation",
    "any",
    "error",
    "error_1yr",
}

Row = dict[str, Any]


def shareable(comparison: Comparison, findings: Findings) -> Comparison:
    """Return a comparison without what tells of few patients.

    A row whose counts are not all told in full has none of the values that follow from them, and is not drawn.
    """
    if not findings.cells.limit:
        return comparison
    keys = [column.key for column in comparison.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in comparison.rows]
    told = _TOLD[comparison.key](rows, findings)
    hidden = [row for row in told if any(isinstance(value, Count) for value in row.values())]
    for row in hidden:
        row.update(dict.fromkeys(_VALUES & row.keys()))
    if comparison.ranked:  # by what is hidden now
        told = [row for row in told if row not in hidden] + hidden
    return replace(
        comparison,
        rows=[tuple(row[key] for key in keys) for row in told],
        metrics=[_metric(metric, findings) for metric in comparison.metrics],
        series=_series(comparison.series, findings),
    )


def _metric(metric: Metric, findings: Findings) -> Metric:
    """Return a metric, without its value where that is a share of few patients or events."""
    cells = findings.cells
    if metric.key == "violations":
        return replace(metric, value=cells.count(round(float(metric.value or 0))).plain)
    if metric.key not in _WHOLE or metric.value is None:
        return metric
    whole = _WHOLE[metric.key](findings)
    part = round(float(metric.value) * whole)
    few = [part, whole - part] + [findings.measures.patients - whole] * (metric.key == "plos_share")
    return replace(metric, value=None) if cells.hides(*few) else metric


def _series(series: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """Return the bars of plots without those of few."""
    drawn = dict(series)
    for name in ("histograms", "events"):
        if name in drawn:
            drawn[name] = {key: [findings.cells.drawn(n) for n in counts] for key, counts in drawn[name].items()}
    return drawn


# One function per kind of comparison: from its rows to those that may be told.


def _parts_of_all(rows: list[Row], findings: Findings) -> list[Row]:
    """Take rows as parts of all patients; those who are in no row are one too.

    Where these are few, shares are of all patients, since those of the others would tell how many are left out.
    """
    patients, cells = findings.measures.patients, findings.cells
    elsewhere = patients - sum(row["patients"] for row in rows)
    if cells.hides(elsewhere):
        for row in rows:
            row["generated"] = part_of(row["patients"], patients)
            row["error"] = row["generated"] - row["published"]
    _set_parts(rows, "patients", findings, elsewhere)
    return rows


def _prevalence(rows: list[Row], findings: Findings) -> list[Row]:
    """Take the groups of age and sex as parts of all patients, a diagnosis's cases in them as parts of all cases."""
    of_group = {(row["band"], row["sex"]): row for row in rows}
    groups = [dict(row) for row in of_group.values()]
    elsewhere = findings.measures.patients - sum(row["patients"] for row in groups)
    _set_parts(groups, "patients", findings, elsewhere)
    people = {(row["band"], row["sex"]): row["patients"] for row in groups}
    rest = {id(row): row["patients"] - row["cases"] for row in rows}
    for own in _grouped(rows, "code"):
        _set_parts(own, "cases", findings)
    for row in rows:
        row["patients"] = people[row["band"], row["sex"]]
        if findings.cells.hides(rest[id(row)]):
            row["cases"] = as_count(row["patients"]) - findings.cells.count(rest[id(row)])
    return rows


def _within(part: str, whole: str | None = None) -> Callable[[list[Row], Findings], list[Row]]:
    """Return a function for rows of which a part of a whole is told, of all patients where none is named."""

    def told(rows: list[Row], findings: Findings) -> list[Row]:
        cells = findings.cells
        for row in rows:
            if row[part] is None:
                continue
            of = findings.measures.patients if whole is None else row[whole]
            row[part], rest = cells.count(row[part]).plain, of - row[part]
            if cells.hides(rest):
                row[part] = cells.count(of) - cells.count(rest)
            if whole is not None:
                row[whole] = cells.count(of).plain
        return rows

    return told


def _alone(*names: str) -> Callable[[list[Row], Findings], list[Row]]:
    """Return a function for rows whose counts have nothing to do with one another."""

    def told(rows: list[Row], findings: Findings) -> list[Row]:
        for row in rows:
            row.update((name, findings.cells.count(row[name]).plain) for name in names)
        return rows

    return told


def _drug_users(rows: list[Row], findings: Findings) -> list[Row]:
    patients, cells = findings.measures.patients, findings.cells
    for row in rows:
        last_year = round((row["generated_1yr"] or 0) * patients)
        if cells.hides(last_year, row["users"] - last_year):
            row["generated_1yr"] = row["error_1yr"] = None
    return _within("users")(rows, findings)


def _refills(rows: list[Row], findings: Findings) -> list[Row]:
    """Take gaps as they are; fills per user are not told where few had any in that year."""
    measures, known = findings.measures, findings.tables.drugs.codes
    users = dict(zip(known, (measures.users_last_year * measures.patients).round().tolist(), strict=True))
    for row in rows:
        if findings.cells.hides(users[row["code"]]):
            row["generated"] = row["error"] = None
    return _alone("gaps")(rows, findings)


def _visits(rows: list[Row], findings: Findings) -> list[Row]:
    """Hide the years of few persons."""
    for row in rows:
        if findings.cells.hides(row["person_years"] / YEARS_OBSERVED):
            row["person_years"] = Count(1, findings.cells.limit * YEARS_OBSERVED - 1)
    return rows


def _seasons(rows: list[Row], findings: Findings) -> list[Row]:
    for own in _grouped(rows, "code"):
        _set_parts(own, "events", findings)
    return rows


def _lengths(rows: list[Row], findings: Findings) -> list[Row]:
    """Leave out the most that one patient has."""
    for row in rows:
        row["most"] = None
    return rows


def _prolonged_stay(rows: list[Row], findings: Findings) -> list[Row]:
    """Take the age bands as parts of those labeled, and those without a label as one more part of all patients."""
    bands, everyone = rows[:-1], rows[-1]
    unlabeled = findings.measures.patients - everyone["patients"]
    _set_both(bands, "patients", "stays", findings, unlabeled)
    stays, rest = findings.cells.count(everyone["stays"]), everyone["patients"] - everyone["stays"]
    if findings.cells.hides(unlabeled):
        rest = as_count(findings.measures.patients) - findings.cells.count(unlabeled) - stays
    else:
        rest = findings.cells.count(rest)
    everyone["stays"], everyone["patients"] = stays.plain, (stays + rest).plain
    return rows


def _last_seen(rows: list[Row], findings: Findings) -> list[Row]:
    _set_both(rows, "patients", "gone", findings)
    return rows


def _unlisted(rows: list[Row], findings: Findings) -> list[Row]:
    """Leave out codes of few events, which may be names or remarks."""
    return [row for row in rows if not findings.cells.hides(row["events"])]


_TOLD: dict[str, Callable[[list[Row], Findings], list[Row]]] = {
    "age_and_sex": _parts_of_all,
    "states": _parts_of_all,
    "prevalence": _prevalence,
    "comorbidity": _alone("both"),
    "violations": _alone("events"),
    "drugs_given_diagnoses": _within("users", "patients"),
    "drug_users": _drug_users,
    "refills": _refills,
    "visits": _visits,
    "seasons": _seasons,
    "lengths": _lengths,
    "bounds": _within("patients"),
    "prolonged_stay": _prolonged_stay,
    "last_seen": _last_seen,
    "unlisted": _unlisted,
}

# Metrics that are shares: of how many patients or events.
_WHOLE: dict[str, Callable[[Findings], int]] = {
    "plos_share": lambda findings: int(findings.histories.stays.sum()),
    "last_seen_before": lambda findings: findings.measures.patients,
    "diagnoses_at_a_bound": lambda findings: findings.measures.patients,
    "prescriptions_at_a_bound": lambda findings: findings.measures.patients,
    "novel": lambda findings: findings.measures.events.total(),
    "outside": lambda findings: findings.measures.events.total(),
}


def _grouped(rows: Iterable[Row], key: str) -> list[list[Row]]:
    """Return the rows of each value of a column."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return list(groups.values())


def _set_parts(rows: Sequence[Row], name: str, findings: Findings, elsewhere: int = 0) -> None:
    """Tell a count of rows that are parts of a whole, ``elsewhere`` being one more part."""
    for row, count in zip(rows, findings.cells.parts([*(row[name] for row in rows), elsewhere]), strict=False):
        row[name] = count.plain


def _set_both(rows: Sequence[Row], whole: str, part: str, findings: Findings, elsewhere: int = 0) -> None:
    """Tell a part of each row's whole; those who are of the part, and those who are not, are told of all rows together.

    Args:
        rows: whose totals are told too.
        whole, part: the columns.
        findings: has the rule.
        elsewhere: further ones who are not of the part, as one more row.
    """
    parts = findings.cells.parts([row[part] for row in rows])
    rests = findings.cells.parts([*(row[whole] - row[part] for row in rows), elsewhere])
    for row, count, rest in zip(rows, parts, rests, strict=False):
        row[part], row[whole] = count.plain, (count + rest).plain
