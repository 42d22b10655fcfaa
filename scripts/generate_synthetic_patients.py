"""Step 1: generate synthetic patients.

    python scripts/generate_synthetic_patients.py -n 1000 -o data/synthetic_patients.json

Writes the patients, <stem>.meta.json with every novel code and its parent, and <stem>.settings.json.
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import GenerateSettings
from exmed_bert.synthetic.generate import run

SUMMARY = "Generate synthetic patients: US demographics, ICD-10-CM diagnoses and ATC drugs over five years."
EXAMPLES = """
python scripts/generate_synthetic_patients.py -n 1000 -o data/synthetic_patients.json
python scripts/generate_synthetic_patients.py -n 100000 -p 0.02 -s 7 -o data/large.jsonl.gz
python scripts/generate_synthetic_patients.py -n 1000000 --workers 2 -o data/million.parquet
"""

if __name__ == "__main__":
    command(GenerateSettings, run, SUMMARY, EXAMPLES)()
