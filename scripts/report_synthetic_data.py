"""How close a file of patients comes to the published figures.

    python scripts/report_synthetic_data.py --input data/synthetic_patients.json --output-dir output/synthetic_report

Writes report.html (one page, opens offline), report.json and the plots as PNG. Any file of patients will do.
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import ReportSettings
from exmed_bert.synthetic.report.report import run

SUMMARY = "Compare a file of patients with the published figures: people, diagnoses, drugs, visits, seasons."
EXAMPLES = """
python scripts/report_synthetic_data.py
python scripts/report_synthetic_data.py --input data/large.jsonl.gz --output-dir output/large_report
"""

if __name__ == "__main__":
    command(ReportSettings, run, SUMMARY, EXAMPLES)()
