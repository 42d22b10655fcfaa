"""Run every benchmark and rewrite the results in benchmarks/README.md from the JSON files.

python benchmarks/all.py              # about five minutes; leave the machine alone meanwhile
python benchmarks/all.py --long       # those that take minutes each, too
python benchmarks/all.py --no-run     # rewrite the README alone
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from common import HEADER, RESULTS, ROOT, Measurement, shown

NAMES = ("conversion", "loading", "generation", "clinvec", "demo")
LONG = (
    *("pretraining", "scaling", "population", "fidelity", "generation_at_size", "learnability", "days", "novel_codes"),
    *("finetuning", "embeddings", "step_parts", "ingestion", "vocabulary", "kills", "censoring", "zero_shot"),
    *("corrupted_dates", "time_to_event"),
)
HOURS = ("finetuning_realistic",)  # results of a command of its own, which takes hours
README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def section(content: dict[str, Any]) -> str:
    """Return the Markdown of one benchmark's JSON file."""
    machine, load = content["machine"], content["load_average_before"]
    given = ", ".join(f"--{name} {value}" for name, value in content["options"].items())
    loads = ", ".join(map(shown, load if isinstance(load, list) else [load]))
    fields = Measurement.__dataclass_fields__
    rows = [Measurement(**{k: v for k, v in figure.items() if k in fields}).row() for figure in content["figures"]]
    lines = [
        f"### {content['benchmark']}",
        "",
        f"{content['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, numpy {machine['numpy']}; "
        f"load average before: {loads}; {given}.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows)),
    ]
    return "\n".join(lines)


def rewrite_readme() -> None:
    """Put the results that are there between the two marks."""
    found = [RESULTS / f"{name}.json" for name in NAMES + LONG + HOURS if (RESULTS / f"{name}.json").is_file()]
    sections = [section(json.loads(path.read_text(encoding="utf-8"))) for path in found]
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(sections) + f"\n\n{END}{after}", encoding="utf-8")
    print(f"Written: {README.relative_to(ROOT)}")


def main() -> None:
    """Run the benchmarks one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, help="repetitions of each short one [default: each one's own]")
    parser.add_argument("--long", action="store_true", help=f"also run {', '.join(LONG)}")
    parser.add_argument("--no-run", action="store_true", help="only rewrite the README from the JSON files")
    given = parser.parse_args()
    for name in () if given.no_run else NAMES + LONG * given.long:
        print(f"\n{name}", flush=True)
        repeats = [] if given.repeats is None or name in LONG else ["--repeats", str(given.repeats)]
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *repeats], check=True)
    rewrite_readme()


if __name__ == "__main__":
    main()
