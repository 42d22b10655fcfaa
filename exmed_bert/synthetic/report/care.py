"""Care compared with published values: drugs, refills, visits, seasons. One function per comparison."""

import calendar
from typing import Any

import numpy as np

from exmed_bert.reference.tables import BAND_STARTS, OLDEST, SEXES
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.report.findings import (
    BINOMIAL,
    BY_CHANCE,
    DRAWS,
    LIMIT,
    NO_REFERENCE,
    NO_TARGET,
    SAMPLES,
    Column,
    Comparison,
    Findings,
    Metric,
    estimates,
    finite,
    judged,
    relative_error,
    simulation,
    source_of,
    table_rows,
    total_variation,
)
from exmed_bert.synthetic.report.measures import YEARS

MONTHLY = ("U07.1", "J06.9", "Z23")  # drawn month by month: waves, a season of colds, one of vaccination


def drugs_given_diagnoses(findings: Findings) -> Comparison:
    """P(drug | diagnosis) of the named indications."""
    tables, measures = findings.tables, findings.measures
    drugs, diagnoses = tables.drugs, tables.diagnoses
    patients, users = (
        measures.with_diagnosis[drugs.link_diagnosis],
        measures.with_both[drugs.link_diagnosis, drugs.link_drug],
    )
    error = measures.given - drugs.link_probability
    counted = patients > 0
    value, chance = float("nan"), np.full(DRAWS, np.nan)
    if counted.any():
        p, n = drugs.link_probability[counted], patients[counted]
        value = np.abs(error[counted]).mean()
        chance = np.abs(simulation().binomial(n, p, (DRAWS, len(n))) / n - p).mean(axis=1)
    sources = [source_of("drugs.csv", drugs.codes[drug], "source_p_given_diagnosis") for drug in drugs.link_drug]
    rows = [
        (
            drugs.codes[drug],
            drugs.names[drug],
            diagnoses.codes[diagnosis],
            int(patients[i]),
            int(users[i]),
            finite(measures.given[i]),
            float(drugs.link_probability[i]),
            finite(error[i]),
            sources[i],
        )
        for i, (drug, diagnosis) in enumerate(zip(drugs.link_drug, drugs.link_diagnosis, strict=True))
    ]
    return Comparison(
        key="drugs_given_diagnoses",
        title="Drugs given a diagnosis",
        text="Share of the patients with a diagnosis who have the drug at all in the file, for whatever reason."
        + estimates(sources),
        source="tables/drugs.csv, p_given_diagnosis; each row names its source",
        columns=(
            Column("code", "Drug"),
            Column("name", "Name"),
            Column("diagnosis", "Diagnosis"),
            Column("patients", "With the diagnosis", "count"),
            Column("users", "With both", "count"),
            Column("generated", "This file", "share"),
            Column("published", "Published", "share"),
            Column("error", "Difference", "points"),
            Column("source", "Source"),
        ),
        rows=rows,
        metrics=[
            judged(
                "drugs_given_diagnoses",
                "P(drug | diagnosis), mean absolute error",
                float(value),
                "share",
                0.02,
                chance,
                BINOMIAL,
            )
        ],
    )


def drug_users(findings: Findings) -> Comparison:
    """Users of each drug within five years and within a year."""
    drugs, measures = findings.tables.drugs, findings.measures
    sources = {
        column: [source_of("drugs.csv", code, f"source_{column}") for code in drugs.codes]
        for column in ("share_5yr", "share_1yr")
    }
    metrics, errors = [], []
    for key, name, users, share in (
        ("users_5yr", "users of a drug within five years", measures.users, drugs.share_5yr),
        (
            "users_1yr",
            f"users of a drug within the year {measures.last_year}",
            measures.users_last_year,
            drugs.share_1yr,
        ),
    ):
        errors.append(relative_error(users, share))
        drawn = simulation().binomial(measures.patients, share, (DRAWS, len(share))) / max(measures.patients, 1)
        metrics.append(
            judged(
                key,
                f"{name}, median relative error",
                float(np.median(np.abs(errors[-1]))),
                "share",
                0.10,
                np.median(np.abs(relative_error(drawn, share)), axis=1),
                BINOMIAL,
            )
        )
    rows = [
        (
            drugs.codes[d],
            drugs.names[d],
            int(measures.with_drug[d]),
            finite(measures.users[d]),
            float(drugs.share_5yr[d]),
            finite(errors[0][d]),
            finite(measures.users_last_year[d]),
            float(drugs.share_1yr[d]),
            finite(errors[1][d]),
            "; ".join(dict.fromkeys((sources["share_5yr"][d], sources["share_1yr"][d]))),
        )
        for d in range(len(drugs.codes))
    ]
    return Comparison(
        key="drug_users",
        title="Users of each drug",
        text="Share of all patients who have the drug at all in the file, and of those who fill it in "
        f"{measures.last_year}, the last calendar year that the file covers. "
        f"Within five years:{estimates(sources['share_5yr']) or ' all are published.'} "
        f"Within a year:{estimates(sources['share_1yr']) or ' all are published.'}",
        source="tables/drugs.csv, share_5yr and share_1yr; each row names its sources in that order",
        columns=(
            Column("code", "Drug"),
            Column("name", "Name"),
            Column("users", "Users", "count"),
            Column("generated", "This file, 5 years", "share"),
            Column("published", "Published, 5 years", "share"),
            Column("error", "Relative error", "relative"),
            Column("generated_1yr", "This file, 1 year", "share"),
            Column("published_1yr", "Published, 1 year", "share"),
            Column("error_1yr", "Relative error", "relative"),
            Column("source", "Sources"),
        ),
        rows=rows,
        metrics=metrics,
    )


def refills(findings: Findings) -> Comparison:
    """Time between fills and fills per user and year."""
    drugs, histories, measures = findings.tables.drugs, findings.histories, findings.measures
    year = measures.last_year - YEARS.start
    users = measures.users_by_year[year]
    fills = np.divide(measures.fills_by_year[year], users, out=np.full(len(users), np.nan), where=users > 0)
    supply = (drugs.supply_shares * drugs.supply_days).sum(axis=1)
    implied = YEAR / drugs.fills_per_user_year
    mean, middle, gaps = histories.gap_mean(), histories.gap_median(), histories.gaps.sum(axis=1)
    order = np.lexsort((-measures.with_drug, ~drugs.long_term))
    rows = [
        (
            drugs.codes[d],
            drugs.names[d],
            "long-term" if drugs.long_term[d] else "short courses",
            int(gaps[d]),
            finite(mean[d]),
            finite(middle[d]),
            float(implied[d]),
            float(supply[d]),
            finite(fills[d]),
            float(drugs.fills_per_user_year[d]),
            finite(fills[d] / drugs.fills_per_user_year[d] - 1),
            source_of("drugs.csv", drugs.codes[d], "source_fills"),
        )
        for d in order
    ]
    errors = [abs(row[10]) for row in rows if row[10] is not None]
    return Comparison(
        key="refills",
        title="Refills",
        text="Days between consecutive fills of the same drug by the same patient, beside the days that the published "
        "fills per user and year imply (365.25 divided by them) and the mean days of supply. The fills per user and "
        f"year are those of {measures.last_year}, the last calendar year that the file covers. Long-term drugs come "
        "first.",
        source="tables/drugs.csv, fills_per_user_year and days_supply; each row names the source of its fills",
        columns=(
            Column("code", "Drug"),
            Column("name", "Name"),
            Column("use", "Use"),
            Column("gaps", "Gaps", "count"),
            Column("mean", "Mean gap", "days"),
            Column("median", "Median gap", "days"),
            Column("implied", "Implied gap", "days"),
            Column("supply", "Days of supply", "days"),
            Column("generated", "Fills per user and year", "number"),
            Column("published", "Published", "number"),
            Column("error", "Relative error", "relative"),
            Column("source", "Source"),
        ),
        rows=rows,
        metrics=[
            Metric(
                "fills_per_user_year",
                "fills per user and year, median relative error",
                float(np.median(errors)) if errors else None,
                "share",
                NO_TARGET,
                note=f"Over the {len(errors)} drugs with a fill in {measures.last_year}.",
            )
        ],
        series={"histograms": {drugs.codes[d]: histories.gaps[d].tolist() for d in order if drugs.long_term[d]}},
    )


def visits(findings: Findings) -> Comparison:
    """Visits per person-year by age and sex."""
    measures, histories = findings.measures, findings.histories
    people, last_day = measures.by_birth_year["people"], measures.last_day or 0
    published = {
        (int(row["age_first"]), int(row["age_last"]), row["sex"]): (
            float(row["visits_per_100_people"]) / 100,
            row["source"],
        )
        for row in table_rows("visit_rates.csv")
    }
    starts = sorted({first for first, _, _ in published}) or BAND_STARTS
    rows, weighted = [], []
    for first, last in zip(starts, (*(start - 1 for start in starts[1:]), OLDEST), strict=True):
        rates, person_years = histories.visits_a_year(people, last_day, first, last)
        for sex, letter in enumerate("MF"):
            rate, source = published.get((first, last, letter), (None, ""))
            found = finite(rates[1, sex])
            rows.append(
                (
                    f"{first}-{last}" if last < OLDEST else f"{first}+",
                    SEXES[sex].lower(),
                    float(person_years[sex]),
                    finite(rates[0, sex]),
                    found,
                    rate,
                    None if rate is None or found is None else found / rate - 1,
                    source,
                )
            )
            weighted.append((person_years[sex], found or 0, rate or 0))
    lived, found, rate = np.array(weighted).T
    total, off = lived.sum(), [abs(row[6]) for row in rows if row[6] is not None]
    compared = (
        "Days with a diagnosis stand against the published visits to a physician's office; days with any code count "
        "fills of drugs too. With the file's ages and sexes the published rates make "
        f"{lived @ rate / max(total, 1):.2f} visits per person-year."
        if published
        else "The tables hold no published value to compare this with."
    )
    return Comparison(
        key="visits",
        title="Visits per year",
        text="Distinct days with a code per year that a person of the file lived within its five years, by age in "
        "the year of the visit. A year of birth counts half; when a patient died or left is not on "
        f"record, so the years after count too. {compared}",
        source="tables/visit_rates.csv; each row names its source" if published else "none",
        columns=(
            Column("age", "Age"),
            Column("sex", "Sex"),
            Column("person_years", "Person-years", "count"),
            Column("any", "Days with any code", "number"),
            Column("generated", "Days with a diagnosis", "number"),
            Column("published", "Published", "number"),
            Column("error", "Relative error", "relative"),
            Column("source", "Source"),
        ),
        rows=rows,
        metrics=[
            Metric(
                "visits_per_year",
                "visits per person-year: days with a diagnosis",
                float(lived @ found / total) if total else None,
                "number",
                NO_TARGET if published else NO_REFERENCE,
                note="Mean over the groups of age and sex, weighted by person-years.",
            ),
            *(
                [
                    Metric(
                        "visits_median_error",
                        "visits per person-year, median relative error by age and sex",
                        float(np.median(off)) if off else None,
                        "share",
                        NO_TARGET,
                    )
                ]
                if published
                else []
            ),
        ],
    )


def seasons(findings: Findings) -> Comparison:
    """When in the year, or in which months of an epidemic, a code is recorded."""
    tables, months = findings.tables, findings.histories.months
    names = tables.diagnoses.codes
    years, _ = findings.histories.covered(findings.measures.last_day or 0)
    of_year = months.reshape(len(names), -1, 12)[:, years].sum(axis=1)  # (K, 12)
    compared: list[tuple[int, list[str], np.ndarray, np.ndarray, list[str]]] = []
    for k in np.flatnonzero((tables.schedule.seasons != 1).any(axis=1)).tolist():
        sources = [source_of("seasons.csv", names[k], "source")] * 12
        compared.append((k, list(calendar.month_name)[1:], of_year[k], tables.schedule.seasons[k], sources))
    named = {(row["code"], row["month"]): row["source"] for row in table_rows("epidemics.csv")}
    for k, of_month in tables.schedule.epidemics.items():
        within = {at: weight for at, weight in of_month.items() if at[0] - YEARS.start in years}
        at = [(year - YEARS.start) * 12 + month - 1 for year, month in within]
        labels = [f"{year}-{month:02}" for year, month in within]
        sources = [named.get((names[k], label), "") for label in labels]
        compared.append((k, labels, months[k, at], np.array(list(within.values())), sources))

    compared = [entry for entry in compared if entry[2].sum() and entry[3].sum()]
    rng, rows, distances, by_chance = simulation(), [], {}, []
    for k, labels, counts, weights, sources in compared:
        found, published = counts / counts.sum(), weights / weights.sum()
        rows += [
            (names[k], label, int(n), float(share), float(expected), float(share - expected), source)
            for label, n, share, expected, source in zip(labels, counts, found, published, sources, strict=True)
        ]
        distances[names[k]] = float(total_variation(found, published))
        drawn = rng.multinomial(counts.sum(), published, DRAWS) / counts.sum()
        by_chance.append(total_variation(drawn, published))
    value = float(np.median(list(distances.values()))) if distances else None
    limit = float(np.quantile(np.median(by_chance, axis=0), LIMIT)) if distances else None
    metric = Metric(
        "seasons",
        f"months of {len(distances)} seasonal or epidemic codes, median total variation distance",
        value,
        "number",
        NO_TARGET if value is None or limit is None or value > limit else BY_CHANCE,
        by_chance=limit,
        note=SAMPLES,
    )
    return Comparison(
        key="seasons",
        title="Seasons and epidemics",
        text="Share of a code's events by month of the year or, for a code that came in waves, by calendar month, over "
        f"the years that the file covers.{estimates([row[-1] for row in rows])}",
        source="tables/seasons.csv and tables/epidemics.csv; each row names its source",
        columns=(
            Column("code", "Code"),
            Column("month", "Month"),
            Column("events", "Events", "count"),
            Column("generated", "This file", "share"),
            Column("published", "Published", "share"),
            Column("error", "Difference", "points"),
            Column("source", "Source"),
        ),
        rows=rows,
        metrics=[metric],
        series=_monthly(findings, years) | {"distances": distances},
    )


def _monthly(findings: Findings, years: np.ndarray) -> dict[str, Any]:
    """Return the events of some codes in every month of the ``years``, for the plot."""
    at = (years[:, None] * 12 + np.arange(12)).ravel()
    labels = [f"{YEARS.start + month // 12}-{month % 12 + 1:02}" for month in at]
    known = findings.tables.diagnoses.codes
    counts = {code: findings.histories.months[known.index(code), at].tolist() for code in MONTHLY if code in known}
    return {"months": labels, "events": counts}
