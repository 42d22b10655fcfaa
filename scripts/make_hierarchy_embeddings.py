"""Embeddings of the code trees in ClinVec's file format, for demonstrations and machines without ClinVec.

    python scripts/make_hierarchy_embeddings.py --output-dir data/hierarchy_embeddings

They are not ClinVec: a random-walk embedding of the ICD-10-CM and ATC trees, of the words in the codes' names, and of
the indications of drugs. Invented codes and a held-out share of the real ones are left out.
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("hierarchy")
