"""Step 4: fine-tune a pretrained ExMed-BERT to an outcome and evaluate it, or predict with a fine-tuned model.

python scripts/finetune-exmed-bert.py --model-dir output/synthetic_pretrain --input data/synthetic_patients.json \\
    --output-dir output/finetune --endpoint "E11*"
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import FinetuneSettings, Resolved

EXAMPLES = """
python scripts/finetune-exmed-bert.py --endpoint I50.9 --output-dir output/heart_failure
python scripts/finetune-exmed-bert.py --endpoint diabetes_type_2 --train-sizes 100,300,1000,all --seeds 3
python scripts/finetune-exmed-bert.py --labels labels.csv --baselines logreg,scratch --explain 50
python scripts/finetune-exmed-bert.py --task plos --output-dir output/plos
python scripts/finetune-exmed-bert.py --predict-only --model-dir output/heart_failure --input new_patients.json \\
    --output-dir output/heart_failure_new
"""


def work(settings: Resolved[FinetuneSettings]) -> None:
    """Fine-tune; torch is loaded only now, so that --help answers at once."""
    from exmed_bert.finetuning.finetune import run

    run(settings)


app = command(FinetuneSettings, work, "Fine-tune ExMed-BERT to an outcome and hold it against baselines.", EXAMPLES)

if __name__ == "__main__":
    app()
