"""Step 4: fine-tune a pretrained ExMed-BERT to an outcome and evaluate it, or predict with a fine-tuned model.

python scripts/finetune-exmed-bert.py --model-dir output/synthetic_pretrain --input data/synthetic_patients.json \\
    --output-dir output/finetune --endpoint "E11*"
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("finetune")
