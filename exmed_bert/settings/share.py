"""The settings of scripts/share_model.py and scripts/export_model.py."""

from pathlib import Path

from pydantic import Field

from exmed_bert.settings.base import FilePath, StepSettings


class ShareSettings(StepSettings):
    """scripts/share_model.py: a copy of a pretrained model without its rare codes."""

    section = "share"

    model_dir: FilePath = Field(Path("output/synthetic_pretrain"), description="Folder of a pretrained model.")
    training_data: FilePath = Field(
        Path("pretrain_stuff/synthetic_train.pt"),
        description="Dataset that the model was trained on, for how many patients have each code.",
    )
    output_dir: FilePath = Field(Path("output/shared_model"), description="Folder of the copy.")
    min_count: int = Field(
        20, ge=1, description="Codes of fewer training patients are removed: tokens, embeddings, predictions."
    )


class ExportSettings(StepSettings):
    """scripts/export_model.py: a model for other programs."""

    section = "export"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"), description="Folder of a pretrained or a fine-tuned model."
    )
    hub_folder: FilePath | None = Field(
        None,
        description="Folder to write in the layout of the Hugging Face Hub: weights, model card, tokenizer, code. "
        "Nothing is uploaded.",
    )
    onnx: FilePath | None = Field(
        None,
        description="File to write, .onnx: encoder and code head of a pretrained model, logits and probability of a "
        "fine-tuned one; compared with the model in onnxruntime before it is put in place.",
    )
