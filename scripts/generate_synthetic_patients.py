"""Step 1: generate synthetic patients.

    python scripts/generate_synthetic_patients.py -n 1000 -o data/synthetic_patients.json

Writes the patients, <stem>.meta.json with every novel code and its parent, and <stem>.settings.json.
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("generate")
