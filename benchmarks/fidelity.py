"""How close realistic patients come to published figures, in three layers: margins, subgroups, dependence.

    python benchmarks/fidelity.py                  # 100,000 patients of seeds 42 and 43; ten minutes
    python benchmarks/fidelity.py --seeds 44

Every figure says what it is: "fitted" and "drawn from" ones only show that the draws do what they are to do; the
others are the evidence and come first. Five-year shares are counted among patients who are observed for the whole five
years, and what follows an onset is, too, counted in a file of five times as many patients, whose first ones are those
of the smaller. With two seeds each figure is the mean of both, beside the lower and the higher.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from common import Measurement, at_least_one, generate, load_average, report
from fidelity_cohort import Cohort, read
from fidelity_rates import DRAWN, FEWEST, FITTED, OPEN, WASHOUT, after_onset, diabetes, margins, outside

from exmed_bert.reference import realistic as figures_of
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.report import care, comparison
from exmed_bert.synthetic.report.findings import Metric
from exmed_bert.synthetic.report.measures import mantel_haenszel

PATIENTS, SEEDS = 100_000, (42, 43)
LARGER = 5  # times as many patients; one in seven of them is observed for the whole five years


def measurements(cohort: Cohort, larger: Cohort, stays: dict[str, float]) -> Iterator[Measurement]:
    """Yield the figures, the evidence first; ``larger`` has five-year shares and what follows an onset."""
    onsets = [*diabetes(larger), *after_onset(larger)]
    drawn, open_ = [*margins(cohort, stays)], [rate for rate in onsets if rate.kind == OPEN]
    drawn += [rate for rate in onsets if rate.kind == DRAWN]
    for name, rates in ((OPEN, open_), (f"{DRAWN} or {FITTED}", drawn)):
        missed = outside(rates)
        what = f"published rates, of {len(rates)}, off by more than 10 % and more than sampling error ({name})"
        yield Measurement(what, [len(missed)], "count", at_most=0)
        for rate in missed:
            yield Measurement(f"  missed: {rate.name}, published {rate.published:.4g}", [rate.found], rate.unit)
    for rate in (*open_, *(rate for rate in drawn if rate.alone)):
        yield Measurement(f"{rate.name}, published {rate.published:.4g} ({rate.kind})", [rate.found], rate.unit)
    for name, value, target in subgroups(larger):
        yield Measurement(f"subgroups: {name} ({OPEN})", [value], "number", **target)
    for name, value, target in dependence(cohort):
        yield Measurement(f"dependence: {name} ({DRAWN})", [value], "number", **target)
    for kind in (DRAWN, FITTED):
        of_kind = [rate for rate in drawn if rate.kind == kind and not rate.alone]
        worst = max(rate.off for rate in of_kind)
        yield Measurement(f"margins: rates of age groups, worst relative error ({kind})", [worst], "share")
    for metric, kind in _of_report(cohort, larger):
        if metric.value is not None and metric.target is not None:
            limit = {"at_least" if metric.at_least else "at_most": metric.target}
            name = re.sub(r" of the [\d,]+ cells", " of the cells", metric.name)
            yield Measurement(f"margins: {name} ({kind})", [float(metric.value)], metric.kind, **limit)
            if metric.by_chance is not None:
                yield Measurement(f"  sampling alone: {name}", [float(metric.by_chance)], metric.kind)


def subgroups(cohort: Cohort) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield how odds ratios of pairs within age bands and sexes agree with the published ones, which are pooled."""
    measures = cohort.throughout.measures
    pairs = cohort.tables.diagnoses.pairs
    published = np.log(cohort.tables.diagnoses.odds_ratios[tuple(pairs.T)])
    counts = measures.pair_tables.astype(float)  # (M, 8, 2, 2)
    enough = counts.min(axis=(2, 3)) >= FEWEST
    of_pair, stratum = np.nonzero(enough)
    ratio, error = mantel_haenszel(counts[of_pair, stratum][:, None])
    off = np.log(ratio) - published[of_pair]
    yield (
        "odds ratios by age band and sex, correlation of the logarithms",
        float(np.corrcoef(np.log(ratio), published[of_pair])[0, 1]),
        {"at_least": 0.8},
    )
    yield (
        "odds ratios by age band and sex, median absolute error of the logarithm",
        float(np.median(np.abs(off))),
        {"at_most": 0.3},
    )
    yield (
        "odds ratios by age band and sex, share beyond two standard errors and 0.3",
        float(((np.abs(off) > 2 * error) & (np.abs(off) > 0.3)).mean()),
        {},
    )
    for group, rows in (
        ("under 45", stratum < 4),
        ("65 and older", stratum >= 6),
        ("men", stratum % 2 == 0),
        ("women", stratum % 2 == 1),
    ):
        if rows.any():
            yield f"odds ratios, {group}, mean error of the logarithm", float(off[rows].mean()), {}


def dependence(cohort: Cohort) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield how the incidence after another condition compares with the tables' hazard ratios."""
    figures, codes = figures_of.load(cohort.tables), cohort.tables.diagnoses.codes
    found, wanted, names = [], [], []
    for earlier, later in np.argwhere(~np.isnan(figures.onset_ratios)):
        ratio, events = rate_ratio(cohort, int(earlier), int(later))
        if events >= FEWEST:
            found.append(np.log(ratio))
            wanted.append(figures.onset_ratios[earlier, later])
            names.append(f"{codes[earlier]} to {codes[later]}")
    off = np.array(found) - np.array(wanted)
    same = float((np.sign(found) == np.sign(wanted)).mean())
    yield "onset after another condition, share of hazard ratios of the right sign", same, {"at_least": 1}
    yield (
        "onset after another condition, median absolute error of the logarithm",
        float(np.median(np.abs(off))),
        {"at_most": 0.3},
    )
    for name, value, target in zip(names, np.exp(found), np.exp(wanted), strict=True):
        yield f"hazard ratio {name}, table {target:.3g}", float(value), {}


def rate_ratio(cohort: Cohort, earlier: int, later: int) -> tuple[float, int]:
    """Return the rate ratio of the onset of one condition with another, and the exposed onsets.

    Pooled over age bands and sexes (Mantel and Haenszel for person-time, Rothman and Boice 1979); both as first
    recorded, after a washout.
    """
    begin, first = cohort["start"] + WASHOUT, cohort["first"]
    onset, exposed = first[:, later], first[:, earlier]
    end = np.minimum(onset, cohort["end"])
    at_risk = (onset >= begin) & (begin < cohort["end"])
    turns = np.clip(exposed, begin, np.maximum(end, begin))
    time = np.stack([(turns - begin).clip(0), (end - turns).clip(0)]) * at_risk / YEAR  # without, with
    event = at_risk & (onset <= cohort["end"])
    stratum = cohort.bands * 2 + cohort["sex"]
    with_it = event & (exposed < onset)
    cases = np.stack([np.bincount(stratum, event & ~with_it, 8), np.bincount(stratum, with_it, 8)])
    years = np.stack([np.bincount(stratum, part, 8) for part in time])
    total = years.sum(axis=0).clip(1e-9)
    above, below = (cases[1] * years[0] / total).sum(), (cases[0] * years[1] / total).sum()
    return float(above / below) if below else float("nan"), int(with_it.sum())


def _of_report(cohort: Cohort, larger: Cohort) -> Iterator[tuple[Metric, str]]:
    """Yield the metrics of the report: people of all, five-year shares of those observed throughout."""
    for compare in (comparison.age_and_sex, comparison.states):
        yield from ((metric, DRAWN) for metric in compare(cohort.everyone).metrics)
    for compare in (comparison.prevalence, comparison.comorbidity, care.drugs_given_diagnoses, care.drug_users):
        for metric in compare(larger.throughout).metrics:
            yield metric, "stopping set by it" if metric.key == "users_1yr" else FITTED
    yield from ((metric, DRAWN) for metric in comparison.violations(cohort.everyone).metrics)


def layers(folder: Path, patients: int, seed: int) -> list[Measurement]:
    """Generate realistic patients and measure them."""
    small, large = (
        generate(folder / f"realistic_{seed}_{n}.parquet", n, seed, ("--realistic", "--workers", "2"))
        for n in (patients, LARGER * patients)
    )
    meta = json.loads(small.with_suffix(".meta.json").read_text(encoding="utf-8"))
    end_date = date.fromisoformat(meta["options"]["end_date"])
    cohort, larger = read(small, end_date), read(large, end_date, rare_only=True)
    return list(measurements(cohort, larger, meta["realistic"]))


def together(of_seeds: list[list[Measurement]]) -> Iterator[Measurement]:
    """Yield each figure once, with a sample of each seed that has it."""
    samples: dict[str, list[float]] = {}
    figures = [figure for of_seed in of_seeds for figure in of_seed]
    for figure in figures:
        samples.setdefault(figure.name, []).extend(figure.samples)
    first = {figure.name: figure for figure in reversed(figures)}
    order = {name: place for place, name in enumerate(samples)}
    for name in sorted(first, key=order.__getitem__):
        yield replace(first[name], samples=samples[name])


def main() -> None:
    """Generate, count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the populations [default: 42 43]")
    given = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        found = [layers(Path(folder), given.patients, seed) for seed in given.seeds]
    report("fidelity", given, load, list(together(found)))


if __name__ == "__main__":
    main()
