"""A model in the layout of the Hugging Face Hub, for its owner to upload; nothing is uploaded here.

README.md                        the model card, whose license a later export keeps
config.json, model.safetensors   the network
modeling_exmed_bert.py           imports this package, so that transformers' Auto classes load the folder
vocab.json, pretraining.json     the tokenizer: codes, length of histories, unit of ages
finetuning.json                  a fine-tuned model: what it predicts
code_tree.safetensors            what codes that the model never met start from, of models that have it
contents.json                    size and digest of the files above but the card
"""

import shutil
from pathlib import Path

from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.contents import CONTENTS, write_contents
from exmed_bert.data.vocabulary_file import VOCABULARY
from exmed_bert.files import read_json
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.card import README, ModelCard, copy_card, write_card
from exmed_bert.models.folder import CODE_TREE, CONFIG, FINETUNING, PRETRAINING, SAFETENSORS
from exmed_bert.sharing.options import check_hub_folder
from exmed_bert.staging import atomic_write, staged_files, write_json

CODE = "modeling_exmed_bert.py"
_OPTIONAL = (CODE_TREE, PRETRAINING, FINETUNING)
NAMES = {README, CONFIG, SAFETENSORS, CODE, VOCABULARY, CONTENTS, *_OPTIONAL}

_MODELING = '''"""The classes of this model. They are in the package exmed_bert, which has to be installed."""

from exmed_bert.models import (  # noqa: F401
    ExMedBertConfig,
    ExMedBertForMaskedLM,
    ExMedBertForSequenceClassification,
    ExMedBertModel,
)
'''


def write_hub_folder(
    folder: Path, model: ExMedBertForMaskedLM | ExMedBertForSequenceClassification, form: ModelInput, source: Path
) -> None:
    """Write the folder, all of it or nothing; `interface.load_model` reads it as it does the model's own.

    Args:
        folder: new, empty, or of an earlier export; a clone of a repository keeps its hidden files.
        model: the weights.
        form: in which it takes histories.
        source: folder of the model.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    check_hub_folder(folder, NAMES)
    with staged_files(folder, obsolete=_OPTIONAL) as staged:
        model.save_pretrained(staged)
        head = "MaskedLM" if isinstance(model, ExMedBertForMaskedLM) else "SequenceClassification"
        classes = {"Config": "Config", "Model": "Model", f"ModelFor{head}": f"For{head}"}
        code = {f"Auto{name}": f"{Path(CODE).stem}.ExMedBert{own}" for name, own in classes.items()}
        write_json(staged / CONFIG, read_json(staged / CONFIG) | {"auto_map": code})
        write_json(staged / VOCABULARY, form.vocabulary.to_dict())
        with atomic_write(staged / CODE) as part:
            part.write_text(_MODELING, encoding="utf-8")
        if model.tree_rows is not None:
            model.tree_rows.write(staged / CODE_TREE)
        for name in (PRETRAINING, FINETUNING):
            if (source / name).is_file():
                shutil.copyfile(source / name, staged / name)
        write_contents(staged)
        if (source / README).is_file():
            copy_card(source, staged, earlier=folder)
        else:
            write_card(staged, _card(model, form), earlier=folder)


def _card(model: ExMedBertForMaskedLM | ExMedBertForSequenceClassification, form: ModelInput) -> ModelCard:
    """Return the card of a model whose folder has none, such as that of a copy."""
    pretrained = isinstance(model, ExMedBertForMaskedLM)
    config = model.config
    return ModelCard(
        title=f"ExMed-BERT, {'pretrained' if pretrained else 'fine-tuned'} on patients' medical codes",
        task="fill-mask" if pretrained else "text-classification",
        about=[
            f"It reads a patient's coded history, at most {form.max_length} codes, visit by visit.",
            f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} heads.",
        ],
        data=[("patients", "not recorded")],
        vocabulary=form.vocabulary,
        measured_on="",
        metrics=[],
        limits=[],
        generated=False,
        example=['vectors = model.embed("patients.json")'],
    )
