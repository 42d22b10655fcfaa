"""A patient explained: on the terminal the risk at each visit, and where a folder is given a page."""

from datetime import timedelta

from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.analysis.patient.history import AtVisits, find_patients
from exmed_bert.analysis.patient.options import check
from exmed_bert.analysis.patient.page import patient_page
from exmed_bert.analysis.patient.plots import DRAWINGS
from exmed_bert.analysis.patient.risks import NoPrediction, PatientRisks, percent, predict_at_visits
from exmed_bert.config import Resolved
from exmed_bert.data.patient import EPOCH
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.locks import held
from exmed_bert.models.folder import read_form
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.settings import ExplainSettings
from exmed_bert.startup import called

SETTINGS = "settings.json"
_SHOWN = 12  # visits on the terminal, the latest


def run(resolved: Resolved[ExplainSettings]) -> None:
    """Predict at each visit of a patient; print that, and write the page if a folder was asked for.

    Raises:
        InputError, OptionError: there is no such patient, the model predicts something else or at none of the visits,
            or the folder cannot be written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    check(settings)
    source = PatientInput(settings.input, settings, read_form(settings.model_dir).static_columns)
    found = _predicted(settings, source)
    patient = found.patient
    rows = [
        (str(EPOCH + timedelta(days=day)), percent(risk))
        for day, risk in zip(found.days.tolist(), found.risks.tolist(), strict=True)
    ]
    if len(rows) > _SHOWN:
        rows = [(f"{len(rows) - _SHOWN:,} visits before", "..."), *rows[-_SHOWN:]]
    console.table(f"{found.outcome}: risk of patient {patient.patient_ids[0]} at each visit", rows)
    if settings.output_dir is None:
        console.echo("\nNothing is written: --output-dir writes a page, which holds the patient.")
        return
    page = patient_page(found, str(source), str(settings.model_dir))
    folder = settings.output_dir
    with held(folder, called("explain")), report_files(folder, page, DRAWINGS) as staged:
        resolved.save(staged / SETTINGS)
    console.table("Written", [("page, which holds the patient", folder / PAGE)])


def _predicted(settings: ExplainSettings, source: PatientInput) -> PatientRisks:
    """Return the patient with risks; of several, the first who has them at half of the visits, or the most.

    Raises:
        InputError, OptionError: as `run`.
    """
    best: PatientRisks | None = None
    patients, problem = find_patients(source, settings.patient_id), None
    for patient in patients:
        try:
            found = predict_at_visits(
                settings.model_dir,
                AtVisits(source, patient),
                patient,
                settings.endpoint,
                settings.horizon_days,
                source.origin.generated,
            )
        except NoPrediction as error:
            problem = problem or error
            continue
        if best is None or len(found.days) > len(best.days):
            best = found
        if 2 * len(found.days) >= found.visits:
            return found
    if best is None:
        assert problem is not None, "there is a patient"
        raise problem
    return best
