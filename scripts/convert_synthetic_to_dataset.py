"""Step 2: convert a file of patients to the training and validation datasets.

python scripts/convert_synthetic_to_dataset.py --input data/synthetic_patients.json \\
    --output pretrain_stuff/synthetic.pt --split all --max-length 50
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import ConvertSettings, Resolved

EXAMPLES = """
python scripts/convert_synthetic_to_dataset.py
python scripts/convert_synthetic_to_dataset.py --input data/patients.jsonl.gz --output pretrain_stuff/real.pt
python scripts/convert_synthetic_to_dataset.py --max-length 512 --age-unit months --no-dynamic-masking
"""


def work(settings: Resolved[ConvertSettings]) -> None:
    """Convert; torch is loaded only now, so that --help answers at once."""
    from exmed_bert.data.convert import run

    run(settings)


app = command(ConvertSettings, work, "Convert a file of patients to datasets for pretraining.", EXAMPLES)

if __name__ == "__main__":
    app()
