"""Step 3: pretrain ExMed-BERT, if wished from ClinVec embeddings.

python scripts/pretrain-exmed-bert-clinvec.py --training-data pretrain_stuff/synthetic_train.pt \\
    --validation-data pretrain_stuff/synthetic_val.pt --output-dir output/synthetic_pretrain \\
    --output-data-dir output/synthetic_pretrain_data

Several GPUs or processes: torchrun --nproc_per_node 2 scripts/pretrain-exmed-bert-clinvec.py ...
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("pretrain")
