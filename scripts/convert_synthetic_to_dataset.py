"""Step 2: convert a file of patients to the training and validation datasets.

python scripts/convert_synthetic_to_dataset.py --input data/synthetic_patients.json \\
    --output pretrain_stuff/synthetic.pt --split all --max-length 50
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("convert")
