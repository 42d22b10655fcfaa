"""Step 3: pretrain ExMed-BERT, if wished from ClinVec embeddings.

python scripts/pretrain-exmed-bert-clinvec.py --training-data pretrain_stuff/synthetic_train.pt \\
    --validation-data pretrain_stuff/synthetic_val.pt --output-dir output/synthetic_pretrain \\
    --output-data-dir output/synthetic_pretrain_data

Several GPUs or processes: torchrun --nproc_per_node 2 scripts/pretrain-exmed-bert-clinvec.py ...
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import PretrainSettings, Resolved

EXAMPLES = """
python scripts/pretrain-exmed-bert-clinvec.py --epochs 10 --hidden-size 64 --num-hidden-layers 2
python scripts/pretrain-exmed-bert-clinvec.py --use-clinvec --clinvec-dir ../ClinVec --use-hierarchical-init --resize-if-needed
torchrun --nproc_per_node 2 scripts/pretrain-exmed-bert-clinvec.py --train-batch-size 256
"""  # noqa: E501


def work(settings: Resolved[PretrainSettings]) -> None:
    """Pretrain; torch is loaded only now, so that --help answers at once."""
    from exmed_bert.training.pretrain import run

    run(settings)


app = command(PretrainSettings, work, "Pretrain ExMed-BERT by masked-code prediction.", EXAMPLES)

if __name__ == "__main__":
    app()
