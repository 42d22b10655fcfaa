"""Measure reading a file as large as the published ClinVec_icd10cm.csv, and making the hierarchy embeddings.

    python benchmarks/clinvec.py

The file is synthetic: 34,842 vectors of 128 values in 46 MB, and 153,166 nodes, as published. Reading is timed from the
call to the vectors, the peak is the resident memory of a process that reads them, its imports included; they also stand
alone. The embeddings are those of scripts/make_hierarchy_embeddings.py, the whole script.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, Measurement, load_average, measure, options, report, run_quietly, script

VECTORS, NODES, DIMENSION = 34_842, 153_166, 128
READ = """
import sys, time, resource
from pathlib import Path
import pyarrow.csv
from exmed_bert.clinvec.reader import read_clinvec
start = time.perf_counter()
if sys.argv[1] != "imports":
    assert len(read_clinvec(Path(sys.argv[1]), "icd10cm").rows) == int(sys.argv[2])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write(folder: Path) -> None:
    """Write files as large as the published ones."""
    import pyarrow as pa
    from pyarrow import csv

    rng = np.random.default_rng(0)
    codes = [f"{chr(65 + i // 10_000)}{i // 100 % 100:02}.{i % 100:02}" for i in range(VECTORS)]
    with open(folder / "ClinGraph_nodes.csv", "w", encoding="utf-8") as file:
        file.write("node_id\tnode_name\tntype\tnode_index\n")
        for i in range(NODES):
            code, kind = (codes[i], "icd10cm") if i < VECTORS else (f"C{i:07}", "umls_cui")
            file.write(f"{code}:{kind}\tsome name of ordinary length {i}\t{kind.upper()}\t{i}\n")
    vectors = rng.normal(0, 3, (VECTORS, DIMENSION)).round(7)
    columns = [pa.array(rng.permutation(VECTORS)), *map(pa.array, vectors.T)]
    table = pa.table(columns, names=["", *map(str, range(DIMENSION))])
    csv.write_csv(table, folder / "ClinVec_icd10cm.csv")


def read(*given: object) -> tuple[float, float]:
    """Return the seconds and the peak MiB of a process that reads the files."""
    command = [sys.executable, "-c", READ, *map(str, given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def main() -> None:
    """Measure and report."""
    given = options(__doc__)
    load = load_average()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        size = (folder / "ClinVec_icd10cm.csv").stat().st_size / 1e6
        found = [read(folder, VECTORS) for _ in range(given.repeats + 1)][1:]
        imports = [read("imports")[1] for _ in range(given.repeats)]
        command = script("make_hierarchy_embeddings.py", "--output-dir", folder / "made")
        made, _ = measure(lambda: run_quietly(command), given.repeats)
    figures = [
        Measurement("size of the file of vectors", [size], "MB"),
        Measurement("reading it", [seconds for seconds, _ in found], "s", at_most=3),
        Measurement("peak memory", [peak for _, peak in found], "MiB", at_most=300),
        Measurement("peak memory, imports alone", imports, "MiB"),
        Measurement("make_hierarchy_embeddings.py", made, "s"),
    ]
    report("clinvec", given, load, figures)


if __name__ == "__main__":
    main()
