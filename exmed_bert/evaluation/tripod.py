"""The section that reporting guidelines ask for, filled in from what a run knows; the rest stands as questions.

TRIPOD+AI (Collins et al., BMJ 385, 2024, e078378) lists what an article on a prediction model reports, PROBAST+AI
(Moons et al., BMJ 388, 2025, e082505) what its readers judge. Numbers are those of their items and domains, the words
ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from exmed_bert.evaluation.results import Reported
from exmed_bert.evaluation.study import Study
from exmed_bert.reporting.content import Cell, ReportSection, Table
from exmed_bert.reporting.small_cells import number_of

_EXCLUDED = "excluded: "  # begins what an attrition says of those who were


@dataclass(frozen=True)
class Item:
    """What a guideline asks for.

    Attributes:
        number: of the item or the domain.
        topic: what it is about.
        known: sentences from the run.
        questions: what only a person can answer.
    """

    number: str
    topic: str
    known: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentences, and each question with a mark that a search finds."""
        return " ".join((*self.known, *(f"[To answer: {question}]" for question in self.questions)))


def reporting_section(results: Reported, study: Study) -> ReportSection:
    """Return the section, as tables that can be copied into an article's supplement.

    Args:
        results: as they are shown: counts that are hidden there are hidden here.
        study: what else the run knows.
    """
    items, domains = tripod(results, study), probast(results, study)
    open_ = sum(len(item.questions) for item in (*items, *domains))
    return ReportSection(
        "reporting",
        "Reporting (TRIPOD+AI, PROBAST+AI)",
        [
            "What the guidelines for prediction models ask for, as far as the run knows it, to be copied into a report "
            f"and checked there. {open_} questions that only a person can answer are marked [To answer: …]. Numbers "
            "are those of the items of TRIPOD+AI (BMJ 2024, e078378) and of the domains of PROBAST+AI (BMJ 2025, "
            "e082505); the words are ours, and the guidelines' own hold."
        ],
        folded=[_table(items, "TRIPOD+AI"), _table(domains, "PROBAST+AI")],
    )


def tripod(results: Reported, study: Study) -> list[Item]:
    """Return the items of TRIPOD+AI from the title to usability."""
    others = ", ".join(model.label for model in results.models[1:])
    return [
        Item("1", "Title", (f"Development and evaluation of a model: {results.title}.",)),
        Item("2", "Abstract", (), ("What are objective, methods, results and conclusion in short?",)),
        Item(
            "3a, 3b",
            "Background",
            (),
            (
                "Which decision is the model to support, for which patients, whose, and at which point of care?",
                "Which models are there already, and why another?",
            ),
        ),
        Item("3c", "Health inequalities", (), ("Which groups are known to be served worse in this condition?",)),
        Item(
            "4",
            "Objectives",
            ("The model is developed and evaluated on patients of the same source; this is no external evaluation.",),
        ),
        Item(
            "5a, 5b",
            "Data",
            _some(study.source, study.index_dates and f"Index dates: {study.index_dates}."),
            ("What were the records kept for, and which people do they represent?",),
        ),
        Item("6a", "Setting", (), ("Which kind of care, how many centers, where?",)),
        Item("6b", "Eligibility", _eligibility(results)),
        Item("6c", "Treatments", (), ("Which treatments do patients get that change the outcome's risk?",)),
        Item("7", "Data preparation", ("Codes were checked, translated and encoded alike for all splits and models.",)),
        Item(
            "8a",
            "Outcome",
            _some(study.outcome, study.censoring),
            ("How well do these records capture the outcome, and does that differ between groups?",),
        ),
        Item(
            "8b, 8c",
            "Assessment of the outcome",
            (),
            ("Who or what decides whether a patient has the outcome, and is anything of the predictors seen then?",),
        ),
        Item(
            "9a-9c",
            "Predictors",
            _some(study.predictors),
            ("Are all predictors there at the moment at which the model is to be used?",),
        ),
        Item("10", "Sample size", _sample_size(results), ("Was a size worked out beforehand, and how?",)),
        Item("11", "Missing data", _missing(study)),
        Item(
            "12a",
            "Use of the data",
            (
                "Training patients fit the models, validation patients choose settings, the moment to stop and the "
                "recalibration, and test patients give every metric. All rows of a patient are in one split.",
            ),
        ),
        Item("12b-12d", "Model", _some(study.analysis, others and f"Compared with: {others}.")),
        Item(
            "12e, 12f",
            "Performance and recalibration",
            (
                f"{results.measures}, with 95 % intervals of {results.resamples:,} "
                f"bootstrap resamples of the patients. {results.recalibration}",
            ),
        ),
        Item(
            "13",
            "Class imbalance",
            ("Where training patients were sampled by outcome, the notes of this report say so.",),
        ),
        Item(
            "14",
            "Fairness",
            tuple(results.fairness),
            ("Are these the groups that matter, and what is done if they differ?",),
        ),
        Item(
            "15",
            "Output",
            (f"A probability of the outcome: {results.title}. No threshold is set.",),
            ("From which risk on is what done, and why?",),
        ),
        Item(
            "16",
            "Training compared with evaluation data",
            ("Both are of one source and differ by a draw of patients alone, unless the notes say otherwise.",),
        ),
        Item("17", "Ethics", (), ("Which committee approved the study, and was consent given or waived?",)),
        Item(
            "18a-18d",
            "Funding, interests, protocol, registration",
            (),
            ("Who paid, who has interests, and where are protocol and registration?",),
        ),
        Item(
            "18e, 18f",
            "Data and code",
            _some(study.software, "settings.json and results.json hold all settings and results."),
            ("Who can have the data, the code and the model, and how?",),
        ),
        Item("19", "Patients and public", (), ("How were patients involved?",)),
        Item("20a", "Flow of participants", _flow(results)),
        Item(
            "20b, 20c",
            "Characteristics",
            _events(results),
            ("Which characteristics of the patients by split belong in a table?",),
        ),
        Item("21", "Development", _sample_size(results)),
        Item("22", "Specification", ("The output folder holds weights, vocabulary, settings and recalibration.",)),
        Item("23a", "Performance", tuple(results.performance)),
        Item("23b", "Performance by group", tuple(results.fairness)),
        Item("24", "Updating", ("The model was not updated after this evaluation.",)),
        Item("25", "Interpretation", (), ("What do the results mean for the objectives, and next to earlier models?",)),
        Item("26", "Limitations", _limits(results, study), ("Which others are there?",)),
        Item(
            "27a-27c",
            "Usability",
            ("A history with too few codes gets no prediction.", *_some(study.missing_handling)),
            ("Who uses it, with which training, and what comes next?",),
        ),
    ]


def probast(results: Reported, study: Study) -> list[Item]:
    """Return the four domains of PROBAST+AI: what speaks to them, and what a reader has to judge."""
    return [
        Item(
            "1",
            "Participants and data sources",
            (*_some(study.source), *_eligibility(results)),
            (
                "Do these patients stand for those the model is to be used for?",
                "Does who is in the records depend on how sick, insured or reached a person is?",
            ),
        ),
        Item(
            "2",
            "Predictors",
            (*_some(study.predictors), "They end at the index date; the program checks this for every history."),
            ("Are codes given alike across centers, years and groups?",),
        ),
        Item(
            "3",
            "Outcome",
            _some(study.outcome, study.censoring),
            (
                "Is the outcome's definition the accepted one, and is any predictor part of it?",
                "Does anything but the outcome decide who is followed, and for how long?",
            ),
        ),
        Item(
            "4",
            "Analysis",
            (
                *_sample_size(results),
                *_some(study.missing_handling),
                "Settings were chosen without the test patients, and discrimination and calibration are both given.",
                *results.fairness,
            ),
            ("Are there enough events for a model of this size, and for each group?",),
        ),
    ]


def _eligibility(results: Reported) -> tuple[str, ...]:
    excluded = [
        f"{name.removeprefix(_EXCLUDED)} ({count:,})"
        for name, count in results.attrition
        if name.startswith(_EXCLUDED) and number_of(count)
    ]
    return (f"Left out: {'; '.join(excluded)}.",) if excluded else ("Nobody was left out.",)


def _flow(results: Reported) -> tuple[str, ...]:
    return tuple(f"{name.strip()}: {count:,}." for name, count in results.attrition)


def _events(results: Reported) -> tuple[str, ...]:
    return tuple(
        f"{split.split}: {split.patients:,} patients, {split.events:,} with the outcome"
        + (f", {split.censored:,} censored; risk {split.share}." if number_of(split.censored) else f" ({split.share}).")
        for split in results.splits
    )


def _sample_size(results: Reported) -> tuple[str, ...]:
    train, *_, test = results.splits
    return (
        f"{train.events:,} of {train.patients:,} training patients and {test.events:,} of {test.patients:,} test "
        "patients have the outcome"
        + (f"; {test.censored:,} of the latter are censored." if number_of(test.censored) else "."),
    )


def _missing(study: Study) -> tuple[str, ...]:
    told = [f"{what}: {count:,}" for what, count in study.missing if number_of(count)]
    return _some(f"Not known: {'; '.join(told)}." if told else "", study.missing_handling)


def _limits(results: Reported, study: Study) -> tuple[str, ...]:
    generated = (
        "The patients are synthetic: the metrics say how the method works on such records, and nothing of the care of "
        "any patient."
    )
    return (
        *((generated,) if study.generated else ()),
        *results.notes,
        "A code that is not in the records counts as not had, whether it was absent or not recorded.",
        "One source, one split: how the model does elsewhere or later is not known.",
    )


def _some(*sentences: str) -> tuple[str, ...]:
    return tuple(sentence for sentence in sentences if sentence)


def _table(items: Iterable[Item], caption: str) -> Table:
    rows: list[tuple[Cell, ...]] = [(item.number, item.topic, item.text) for item in items]
    return Table(("Item", "Topic", "Report"), rows, {0: "word", 1: "text", 2: "text"}, caption, stacked=True)
