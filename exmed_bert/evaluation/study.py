"""What a run knows of its study beyond the metrics: where patients, outcome and predictors come from."""

from collections.abc import Sequence
from dataclasses import dataclass

from exmed_bert.reporting.small_cells import Counted


@dataclass(frozen=True)
class Study:
    """Facts for the section that reporting guidelines ask for; every text is a sentence, "" where nothing is known.

    Attributes:
        source: where the patients come from.
        index_dates: first and last index date.
        outcome: what is predicted, when it counts, and from which records it is taken.
        predictors: what a model sees of a patient, and up to when.
        missing: what is not known of how many patients.
        missing_handling: what the models make of it.
        analysis: model, tuning, and what is random.
        censoring: what becomes of patients whose follow-up ends early, and of those who die.
        software: programs with their versions.
        generated: whether the patients are synthetic.
    """

    source: str
    index_dates: str = ""
    outcome: str = ""
    predictors: str = ""
    missing: Sequence[tuple[str, Counted]] = ()
    missing_handling: str = ""
    analysis: str = ""
    censoring: str = ""
    software: str = ""
    generated: bool = False
