"""Where ClinVec's vectors are, and the settings of scripts/make_hierarchy_embeddings.py, which makes such vectors."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from exmed_bert.settings.base import FilePath, StepSettings


class ClinVecSettings(StepSettings):
    """Initialization from ClinVec embeddings; part of step 3."""

    section = "clinvec"

    use_clinvec: bool = Field(False, description="Initialize the code embeddings from ClinVec vectors.")
    clinvec_dir: FilePath | None = Field(
        None, description="Folder with ClinGraph_nodes.csv and ClinVec_<vocabulary>.csv."
    )
    vocab_types: str = Field(
        "auto",
        description="ClinVec vocabularies to read, separated by commas, named as in their files: icd10cm for "
        "ClinVec_icd10cm.csv; auto: those in the folder that the dataset's codes can use.",
    )
    use_hierarchical_init: bool = Field(
        False,
        description="Initialize codes without a vector, in ClinVec or in --model-dir, from their nearest ancestor and "
        "siblings that have one.",
    )
    resize_if_needed: bool = Field(
        False, description="Resize the vectors when their dimension differs from --hidden-size."
    )
    resize_method: Literal["auto", "pca", "truncate", "learned_projection", "pad_smart", "pad_random"] = Field(
        "auto", description="How to resize: auto is pca to fewer dimensions and pad_smart to more."
    )
    clinvec_scale: float | None = Field(
        None,
        gt=0,
        description="Factor on the vectors; not given: the one that makes them as long as randomly initialized rows.",
    )


class HierarchySettings(StepSettings):
    """scripts/make_hierarchy_embeddings.py: embeddings of the code trees in ClinVec's file format."""

    section = "hierarchy"

    output_dir: FilePath = Field(Path("data/hierarchy_embeddings"), description="Folder of the files.")
    dimension: int = Field(128, ge=2, description="Dimension of the vectors; ClinVec's is 128.")
    held_out: float = Field(
        0.1, ge=0, le=0.5, description="Share of the codes that are held out, to evaluate the initialization with."
    )
    seed: int = Field(42, ge=0, description="Seed of the embedding and of the held-out codes.")
