"""Embeddings of the code trees in ClinVec's file format, for demonstrations and machines without ClinVec.

    python scripts/make_hierarchy_embeddings.py --output-dir data/hierarchy_embeddings

They are not ClinVec: a random-walk embedding of the ICD-10-CM and ATC trees, of the words in the codes' names, and of
the indications of drugs. Invented codes and a held-out share of the real ones are left out.
"""

import _bootstrap  # noqa: F401

from exmed_bert.cli import command
from exmed_bert.clinvec.hierarchy import run
from exmed_bert.config import HierarchySettings

SUMMARY = "Embed the ICD-10-CM and ATC trees and write the vectors in ClinVec's file format."
EXAMPLES = """
python scripts/make_hierarchy_embeddings.py
python scripts/make_hierarchy_embeddings.py --output-dir data/hierarchy_64 --dimension 64 --seed 1
python scripts/pretrain-exmed-bert-clinvec.py --use-clinvec --clinvec-dir data/hierarchy_embeddings \\
    --use-hierarchical-init --resize-if-needed
"""

if __name__ == "__main__":
    command(HierarchySettings, run, SUMMARY, EXAMPLES)()
