"""What a pretrained model makes of novel codes: where they lie among their relatives, and how well it guesses them.

    python scripts/analyze_novel_codes.py --model-dir output/synthetic_pretrain \\
        --dataset pretrain_stuff/synthetic_val.pt --output-dir output/novel_codes

Writes report.html (one page, opens offline), results.json, tables as CSV, the plots as PNG, and the embeddings for
TensorBoard's projector. docs/NOVEL_CODES.md says how to read each figure.
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("analyze")
