"""What a pretrained model makes of novel codes: where they lie among their relatives, and how well it guesses them.

    python scripts/analyze_novel_codes.py --model-dir output/synthetic_pretrain \\
        --dataset pretrain_stuff/synthetic_val.pt --output-dir output/novel_codes

Writes report.html (one page, opens offline), results.json, tables as CSV, the plots as PNG, and the embeddings for
TensorBoard's projector. docs/NOVEL_CODES.md says how to read each figure.
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.config import AnalyzeSettings, Resolved

SUMMARY = "Analyse a model's embeddings of novel codes and how well it predicts them when they are masked."
EXAMPLES = """
python scripts/analyze_novel_codes.py
python scripts/analyze_novel_codes.py --model-dir output/run_2 --dataset pretrain_stuff/run_2_val.pt --output-dir output/novel_2
tensorboard --logdir output/novel_codes/projector
"""  # noqa: E501


def work(settings: Resolved[AnalyzeSettings]) -> None:
    """Analyse; torch is loaded only now, so that --help answers at once."""
    from exmed_bert.analysis.novel_codes.analyze import run

    run(settings)


app = command(AnalyzeSettings, work, SUMMARY, EXAMPLES)

if __name__ == "__main__":
    app()
