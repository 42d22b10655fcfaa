"""Copy a pretrained model without its rare codes, to give it away.

python scripts/share_model.py --model-dir output/synthetic_pretrain --output-dir output/shared_model --min-count 20
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("share")
