"""Analyze a pretrained model on novel codes: similarity to their relatives, and masked-code prediction.

    python scripts/analyze_novel_codes.py --model-dir output/synthetic_pretrain \\
        --dataset pretrain_stuff/synthetic_val.pt --output-dir output/novel_codes

Writes report.html (one page, opens offline), results.json, tables as CSV, the plots as PNG, and the embeddings for
TensorBoard's projector. docs/NOVEL_CODES.md says how to read each metric.
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("analyze")
