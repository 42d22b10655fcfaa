"""Exports of a model for other programs: a folder for the Hugging Face Hub, an ONNX file."""

from typing import Any

from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.config import Resolved
from exmed_bert.locks import held
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.card import README, license_of
from exmed_bert.models.folder import FINETUNING, read_finetuned, read_pretrained
from exmed_bert.settings import ExportSettings
from exmed_bert.sharing.hub import write_hub_folder
from exmed_bert.sharing.options import check_export
from exmed_bert.startup import called


def run(resolved: Resolved[ExportSettings]) -> None:
    """Write what is asked for.

    Raises:
        InputError, OptionError: as `options.check_export`, or the model cannot be read or the export be written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    check_export(settings)
    model: ExMedBertForMaskedLM | ExMedBertForSequenceClassification
    finetuning: dict[str, Any] = {}
    if (settings.model_dir / FINETUNING).is_file():
        model, form, finetuning = read_finetuned(settings.model_dir)
    else:
        model, form = read_pretrained(settings.model_dir)
    written: list[tuple[str, object]] = []
    if settings.hub_folder is not None:
        with held(settings.hub_folder, called("export")):
            write_hub_folder(settings.hub_folder, model, form, settings.model_dir)
        written.append(("folder for the Hub", settings.hub_folder))
        if not license_of(settings.hub_folder / README):
            written.append(("  without a license", f"fill in the field at the top of its {README}"))
    if settings.onnx is not None:
        from exmed_bert.sharing.onnx_graph import EncoderAndCodeHead, Graph, Outcome, write_onnx

        graph: Graph
        if isinstance(model, ExMedBertForMaskedLM):
            graph = EncoderAndCodeHead(model)
        else:
            graph = Outcome(model, form, finetuning)
        with held(settings.onnx, called("export")):
            difference = write_onnx(settings.onnx, graph, form)
        written.append(("ONNX file", settings.onnx))
        written.append(("  largest difference to the model", f"{difference:.1e}"))
    console.table("Written", written)
