"""A population compared with published values: one function per comparison.

Each takes the counts of a file and returns a `Comparison`: rows with value, error and source, and metrics with their
verdict. A further published table is one more function in `COMPARISONS`. Beside each target stands what sampling alone
would give: the same metric in simulated files of this size that follow the published values.
"""

from collections.abc import Callable

import numpy as np

from exmed_bert.reference.rows import split
from exmed_bert.reference.tables import BAND_STARTS, SEXES
from exmed_bert.synthetic.report import care, descriptions
from exmed_bert.synthetic.report.findings import (
    BANDS,
    BINOMIAL,
    DRAWS,
    MET,
    MISSED,
    SAMPLES,
    Column,
    Comparison,
    Findings,
    Metric,
    demographic_source,
    estimates,
    finite,
    judged,
    part_of,
    relative_error,
    simulation,
    source_of,
    source_rows,
    total_variation,
)
from exmed_bert.synthetic.report.histories import RULES
from exmed_bert.synthetic.report.measures import UNKNOWN_SEX, mantel_haenszel

BRACKET = 5  # years of age, as the census publishes them
ENOUGH, MANY = 200, 2000  # cases that a cell is expected to hold for the two metrics of prevalence


def age_and_sex(findings: Findings) -> Comparison:
    """Five-year brackets of age by sex against the census."""
    published = _brackets(findings.tables.demographics.people)
    ages = findings.measures.ages
    people = np.zeros(findings.tables.demographics.people.shape, dtype=np.int64)
    np.add.at(people, ages.clip(max=len(people) - 1), findings.measures.by_birth_year["people"][:, :UNKNOWN_SEX])
    counts = _brackets(people)
    metric = _distance("age_and_sex", "age and sex, total variation distance", counts, published)
    source = demographic_source("age_and_sex")
    rows = []
    for bracket, sex in np.ndindex(counts.shape):
        first = bracket * BRACKET
        name = f"{first}-{first + BRACKET - 1}" if bracket < len(counts) - 1 else f"{first}+"
        rows.append((name, SEXES[sex].lower(), int(counts[bracket, sex]), *_shares(counts, published, (bracket, sex))))
    unknown = findings.measures.unknown_sex
    left_out = findings.cells.show(unknown)
    return Comparison(
        key="age_and_sex",
        title="Age and sex",
        text="Shares of all patients by five-year age bracket and sex. Age is the year of the file's last event minus "
        "the year of birth." + (f" {left_out} patients of unknown sex are left out." if unknown else ""),
        source=source,
        columns=(
            Column("bracket", "Age"),
            Column("sex", "Sex"),
            Column("patients", "Patients", "count"),
            Column("generated", "This file", "share"),
            Column("published", "Published", "share"),
            Column("error", "Difference", "points"),
        ),
        rows=rows,
        metrics=[metric],
    )


def states(findings: Findings) -> Comparison:
    """States against the census."""
    demographics = findings.tables.demographics
    people = np.add.reduceat(demographics.people.sum(axis=1), BAND_STARTS)
    published = people @ demographics.state_given_band
    counts, elsewhere, missing = np.zeros(len(published), dtype=np.int64), 0, 0
    for state, patients in findings.histories.states.items():
        name = (state or "").strip().upper()
        if name in demographics.states:
            counts[demographics.states.index(name)] += patients
        elif name:
            elsewhere += patients
        else:
            missing += patients
    rows = [(state, int(counts[i]), *_shares(counts, published, i)) for i, state in enumerate(demographics.states)]
    left_out = [f"{findings.cells.show(missing)} patients without a state"] * (missing > 0)
    left_out += [f"{findings.cells.show(elsewhere)} of a state that the census table does not hold"] * (elsewhere > 0)
    return Comparison(
        key="states",
        title="States",
        text="Shares of the patients by state." + (f" Left out: {' and '.join(left_out)}." if left_out else ""),
        source=demographic_source("states"),
        columns=(
            Column("state", "State"),
            Column("patients", "Patients", "count"),
            Column("generated", "This file", "share"),
            Column("published", "Published", "share"),
            Column("error", "Difference", "points"),
        ),
        rows=rows,
        metrics=[_distance("states", "states, total variation distance", counts, published)],
    )


def prevalence(findings: Findings) -> Comparison:
    """Share of each age band and sex that has each diagnosis."""
    diagnoses, people = findings.tables.diagnoses, findings.measures.people  # people: (4, 2)
    share, cases = diagnoses.prevalence, findings.measures.cases  # (K, 4, 2)
    expected = share * people
    error = relative_error(cases, expected)
    spread = np.abs(cases - expected) / np.sqrt((expected * (1 - share)).clip(1e-9))  # in standard errors

    def errors(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off = np.abs(relative_error(counts, expected))  # (..., K, 4, 2)
        return _median(off[..., expected >= ENOUGH]), _largest(off[..., expected >= MANY])

    drawn = simulation().binomial(people, share, (DRAWS, *share.shape))
    (middle, worst), (middle_by_chance, worst_by_chance) = errors(cases), errors(drawn)
    sources = [
        source_of("diagnoses.csv", code, "source_prevalence", "source_age_shape", "source_sex")
        for code in diagnoses.codes
    ]
    order = sorted(
        zip(*np.nonzero((expected > 0) | (cases > 0)), strict=True),
        key=lambda at: (expected[at] < ENOUGH, -abs(error[at]) if expected[at] >= ENOUGH else -spread[at]),
    )
    rows = [
        (
            diagnoses.codes[k],
            diagnoses.names[k],
            BANDS[band],
            SEXES[sex].lower(),
            int(people[band, sex]),
            int(cases[k, band, sex]),
            float(expected[k, band, sex]),
            part_of(cases[k, band, sex], people[band, sex]),
            float(share[k, band, sex]),
            finite(error[k, band, sex]),
            sources[k],
        )
        for k, band, sex in order
    ]
    n_enough, n_many = int((expected >= ENOUGH).sum()), int((expected >= MANY).sum())
    return Comparison(
        key="prevalence",
        title="Prevalence of diagnoses",
        text="Share of the patients of an age band and sex who have a diagnosis at least once. The expected number "
        "of cases is the published share times the file's patients of that cell; cells expected to hold "
        f"{ENOUGH} cases or more come first, by relative error, the others by standard errors.{estimates(sources)}",
        source="tables/diagnoses.csv; each row names its sources for level, age and sex",
        columns=(
            Column("code", "Code"),
            Column("name", "Diagnosis"),
            Column("band", "Age"),
            Column("sex", "Sex"),
            Column("patients", "Patients", "count"),
            Column("cases", "Cases", "count"),
            Column("expected", "Expected", "count"),
            Column("generated", "This file", "share"),
            Column("published", "Published", "share"),
            Column("error", "Relative error", "relative"),
            Column("source", "Source"),
        ),
        rows=rows,
        ranked=True,
        metrics=[
            judged(
                "prevalence_median_error",
                f"prevalence, median relative error of the {n_enough:,} cells expected to hold {ENOUGH} cases",
                float(middle),
                "share",
                0.03,
                middle_by_chance,
                BINOMIAL,
            ),
            judged(
                "prevalence_worst_error",
                f"prevalence, worst relative error of the {n_many:,} cells expected to hold {MANY:,} cases",
                float(worst),
                "share",
                0.10,
                worst_by_chance,
                BINOMIAL,
            ),
        ],
    )


def comorbidity(findings: Findings) -> Comparison:
    """Odds ratios of pairs of diagnoses given age and sex."""
    diagnoses, pairs = findings.tables.diagnoses, findings.measures.pairs
    published = diagnoses.odds_ratios[pairs[:, 0], pairs[:, 1]]
    counts = findings.measures.pair_tables
    ratio, deviation = mantel_haenszel(counts)
    counted = np.isfinite(deviation)
    log_published = np.log(published)
    log_ratio = np.log(np.where(counted, ratio, np.nan))
    error = log_ratio - log_published

    correlation, middle, by_chance = float("nan"), float("nan"), np.full((2, DRAWS), np.nan)
    if counted.sum() >= 3:
        drawn = log_published[counted] + simulation().normal(0, deviation[counted], (DRAWS, counted.sum()))
        correlation = np.corrcoef(log_ratio[counted], log_published[counted])[0, 1]
        middle = np.median(np.abs(error[counted]))
        by_chance[0] = [np.corrcoef(sample, log_published[counted])[0, 1] for sample in drawn]
        by_chance[1] = np.median(np.abs(drawn - log_published[counted]), axis=1)
    sources = [_pair_source(diagnoses.codes[i], diagnoses.codes[j]) for i, j in pairs]
    rows = [
        (
            f"{diagnoses.codes[i]} with {diagnoses.codes[j]}",
            f"{diagnoses.names[i]}; {diagnoses.names[j]}",
            int(counts[m, :, 1, 1].sum()),
            finite(ratio[m]),
            float(published[m]),
            finite(error[m]),
            finite(deviation[m]),
            sources[m],
        )
        for m, (i, j) in enumerate(pairs)
    ]
    note = f"Sampling error: the published ratios with normal errors of the file's own standard errors, {DRAWS} times."
    return Comparison(
        key="comorbidity",
        title="Comorbidity",
        text="Odds ratio of having both diagnoses of a pair, pooled over age bands and sexes (Mantel and Haenszel "
        f"1959; standard errors of Robins, Breslow and Greenland 1986). {int(counted.sum())} of the {len(pairs)} pairs "
        f"have enough patients for a ratio.{estimates(sources)}",
        source="tables/diagnoses.csv, comorbid_odds_ratios; each row names its source",
        columns=(
            Column("pair", "Pair"),
            Column("names", "Diagnoses"),
            Column("both", "Patients with both", "count"),
            Column("generated", "This file", "number"),
            Column("published", "Published", "number"),
            Column("error", "Error of the logarithm", "number"),
            Column("deviation", "Standard error", "number"),
            Column("source", "Source"),
        ),
        rows=rows,
        metrics=[
            judged(
                "comorbidity_correlation",
                "comorbidity, correlation of the log odds ratios",
                float(correlation),
                "number",
                0.95,
                by_chance[0],
                note,
                at_least=True,
            ),
            judged(
                "comorbidity_median_error",
                "comorbidity, median absolute error of the log odds ratios",
                float(middle),
                "number",
                0.15,
                by_chance[1],
                note,
            ),
        ],
    )


def violations(findings: Findings) -> Comparison:
    """Codes in patients who cannot have them, or before they existed: there must be none."""
    tables, broken = findings.tables, findings.histories.broken
    names = (*tables.diagnoses.names, *tables.drugs.names)
    known = (*tables.diagnoses.codes, *tables.drugs.codes)
    rows = [(known[i], names[i], _RULE_TEXT[RULES[rule]], int(broken[rule, i])) for rule, i in np.argwhere(broken > 0)]
    rows.sort(key=lambda row: -row[3])
    total = int(broken.sum())
    return Comparison(
        key="violations",
        title="Codes that a patient cannot have",
        text="Events that break the tables' limits on sex, age or first day of use. Only the year of birth is on "
        "record, so a patient has one of two ages on the day of an event, the calendar year minus the year of birth or "
        "one less; the event breaks the rule where neither is allowed. An unknown sex breaks no rule.",
        source="tables/diagnoses.csv and tables/drugs.csv: sex, min_age, max_age, valid_from",
        columns=(
            Column("code", "Code"),
            Column("name", "Name"),
            Column("rule", "Rule"),
            Column("events", "Events", "count"),
        ),
        rows=rows,
        metrics=[
            Metric(
                "violations",
                "events that break a rule of sex, age or validity",
                total,
                "count",
                MISSED if total else MET,
                target=0,
                note="Every event of a code that the tables hold is checked.",
            )
        ],
    )


# The order of the report.
COMPARISONS: tuple[Callable[[Findings], Comparison], ...] = (
    age_and_sex,
    states,
    prevalence,
    comorbidity,
    violations,
    care.drugs_given_diagnoses,
    care.drug_users,
    care.refills,
    care.visits,
    care.seasons,
    descriptions.lengths,
    descriptions.bounds,
    descriptions.prolonged_stay,
    descriptions.last_seen,
    descriptions.unlisted,
)

_RULE_TEXT = {"sex": "not in this sex", "age": "not at this age", "valid from": "before it was valid"}


def _distance(key: str, name: str, counts: np.ndarray, published: np.ndarray) -> Metric:
    """Return the metric of the total variation distance of counts from published shares."""
    n, shares = int(counts.sum()), published.ravel() / published.sum()
    value, chance = float("nan"), np.full(DRAWS, np.nan)
    if n:
        value = float(total_variation(counts.ravel() / n, shares))
        chance = total_variation(simulation().multinomial(n, shares, DRAWS) / n, shares)
    return judged(key, name, value, "number", 0.01, chance, SAMPLES)


def _brackets(people: np.ndarray) -> np.ndarray:
    """Return (ages, 2) people as (brackets, 2)."""
    return np.add.reduceat(people, np.arange(0, len(people), BRACKET), axis=0)


def _shares(
    counts: np.ndarray, published: np.ndarray, at: int | tuple[int, ...]
) -> tuple[float | None, float, float | None]:
    """Return the generated share, the published one and their difference."""
    found, expected = part_of(counts[at], counts.sum()), float(published[at] / published.sum())
    return found, expected, None if found is None else found - expected


def _median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def _largest(values: np.ndarray) -> np.ndarray:
    return values.max(axis=-1, initial=0) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def _pair_source(first: str, second: str) -> str:
    """Return the sources of an odds ratio, which either diagnosis may name: ``partner=source|partner=source``."""
    sources = []
    for code, partner in ((first, second), (second, first)):
        for part in split(source_rows("diagnoses.csv").get(code, {}).get("source_odds_ratios", "")):
            named, _, source = part.partition("=")
            if named == partner:
                sources.append(source)
    return "; ".join(dict.fromkeys(sources))
