"""Compare patients with published values.

    python scripts/report_synthetic_data.py --input data/synthetic_patients.json --output-dir output/synthetic_report

Writes report.html (one page, opens offline), report.json and the plots as PNG. Any file of patients will do.
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("report")
