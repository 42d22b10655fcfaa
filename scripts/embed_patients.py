"""Embed patients: a vector for each of them, as a model sees their history.

python scripts/embed_patients.py --model-dir output/synthetic_pretrain --input data/synthetic_patients.json
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("embed")
