"""The card of a model: front matter that the Hub reads, and a license that stays the owner's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard as HubCard

from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation.masked_codes import MaskedCodePredictions, intervals
from exmed_bert.models.card import README, Metric, ModelCard, write_card

CARD = ModelCard(
    title='A model: "of patients"',
    task="fill-mask",
    about=["It reads codes."],
    data=[("patients it was trained on", "1,000"), ("patients it was validated on", "<11")],
    vocabulary=CodeVocabulary.build([("atc", "A10BA02"), ("icd10cm", "I10"), ("icd10cm", "E11.9")]),
    measured_on="Of 200 patients.",
    metrics=[Metric("accuracy, top 1", "accuracy_top1", 0.48321, "0.450 to 0.515"), Metric("AUC | 2", "auc", 0.5)],
    limits=["It predicts codes."],
    generated=True,
    example=['model.nearest_codes("I10")'],
)


def test_the_hub_reads_the_front_matter(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    read = HubCard.load(tmp_path / README)
    assert read.data.library_name == "transformers" and read.data.pipeline_tag == "fill-mask" and not read.data.license
    assert read.data.tags == ["exmed-bert", "medical-codes", "electronic-health-records", "synthetic-data"]
    found = [(result.metric_type, result.metric_value) for result in read.data.eval_results]
    assert found == [
        ("accuracy_top1", 0.4832),
        ("auc", 0.5),
    ]
    text = read.text
    for line in ("| accuracy, top 1 | 0.483 | 0.450 to 0.515 |", "| AUC \\| 2 | 0.500 | – |", "| ICD-10-CM | 2 |",
                 "| patients it was validated on | <11 |", "from exmed_bert import load_model"):  # fmt: skip
        assert line in text, line
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Training data", "Vocabulary", "Metrics", "Limits", "How to load", "License"]


@pytest.mark.parametrize("card", [CARD, replace(CARD, metrics=[], generated=False)])
def test_the_license_that_the_owner_gave_stays(card: ModelCard, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    path = tmp_path / README
    path.write_text(path.read_text().replace("\nlicense:\n", "\nlicense: cc-by-4.0\n"))
    write_card(tmp_path, CARD)
    assert yaml.safe_load(path.read_text().split("---")[1])["license"] == "cc-by-4.0"


def test_intervals_widen_where_patients_are_all_right_or_all_wrong() -> None:
    def found(ranks: list[int], counts: list[int]) -> dict[str, float]:
        of = np.zeros(len(ranks))
        nothing = np.empty(0)
        return intervals(MaskedCodePredictions(of, np.array(ranks), of, np.array(counts), nothing, nothing))

    mixed, alike = found([0, 3] * 200, [2] * 200), found([0, 0, 3, 3] * 100, [2] * 200)
    single = found([0, 3] * 200, [1] * 400)
    width = {name: one["accuracy_top1_high"] - one["accuracy_top1_low"] for name, one in
             (("mixed", mixed), ("alike", alike), ("single", single))}  # fmt: skip
    assert width["mixed"] == 0 and abs(width["single"] - 2 * 1.96 * 0.5 / 20) < 1e-3
    assert abs(width["alike"] / width["single"] - 2**0.5) < 1e-2
    assert found([0], [1]) == {}
