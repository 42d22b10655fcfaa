"""The commands: one table for the scripts, for ``exmed-bert`` and for ``python -m exmed_bert``.

Nothing but the standard library is imported here before `main` or `run_script` is called, so that a package that is
missing can be named, and nothing of a step before its options have passed its check.
"""

from exmed_bert import startup
from exmed_bert.startup import Command

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "generate",
            "exmed_bert.settings:GenerateSettings",
            "exmed_bert.synthetic.generate:check",
            "exmed_bert.synthetic.generate:run",
            "Generate synthetic patients: US demographics and five years of ICD-10-CM and ATC codes.",
            """
            {generate} -n 1000 -o data/synthetic_patients.json
            {generate} -n 100000 -p 0.02 -s 7 -o data/large.jsonl.gz
            {generate} -n 1000000 --workers 2 -o data/million.parquet
            {generate} -n 10000000 --workers 2 --shards 64 -o data/population
            {generate} -n 1000 --realistic --export omop -o data/synthetic_omop
            """,
        ),
        Command(
            "convert",
            "exmed_bert.settings:ConvertSettings",
            "exmed_bert.data.options:check",
            "exmed_bert.data.convert:run",
            "Convert patients to datasets for pretraining.",
            """
            {convert}
            {convert} --input data/patients.jsonl.gz --output pretrain_stuff/real.pt
            {convert} --input omop/ --athena vocabularies/ --output pretrain_stuff/omop.pt
            {convert} --max-length 512 --age-unit months --no-dynamic-masking
            {convert} --input data/population --workers 2 --output pretrain_stuff/population.pt
            {convert} --input omop/ --export meds --output data/omop_as_meds
            """,
        ),
        Command(
            "pretrain",
            "exmed_bert.settings:PretrainSettings",
            "exmed_bert.training.options:check",
            "exmed_bert.training.pretrain:run",
            "Pretrain ExMed-BERT by masked-code prediction.",
            """
            {pretrain} --epochs 10 --hidden-size 64 --num-hidden-layers 2
            {pretrain} --use-clinvec --clinvec-dir ../ClinVec --use-hierarchical-init --resize-if-needed
            torchrun --nproc_per_node 2 {pretrain.program} --train-batch-size 256
            """,
        ),
        Command(
            "finetune",
            "exmed_bert.settings:FinetuneSettings",
            "exmed_bert.finetuning.options:check",
            "exmed_bert.finetuning.finetune:run",
            "Fine-tune ExMed-BERT to an outcome and compare it with baselines.",
            r"""
            {finetune} --endpoint I50.9 --output-dir output/heart_failure
            {finetune} --endpoint diabetes_type_2 --train-sizes 100,300,1000,all --seeds 3
            {finetune} --labels labels.csv --baselines logreg,scratch --explain 50
            {finetune} --task plos --output-dir output/plos
            {finetune} --task time-to-event --endpoint "E11*" --horizons 180,365,730
            {finetune} --predict-only --model-dir output/heart_failure --input new_patients.json \
                --output-dir output/heart_failure_new
            """,
        ),
        Command(
            "embed",
            "exmed_bert.settings:EmbedSettings",
            "exmed_bert.embedding.options:check",
            "exmed_bert.embedding.embed:run",
            "Embed patients: a vector for each of them, as a model sees their history.",
            r"""
            {embed}
            {embed} --input omop/ --output output/omop.parquet --pooling last-visit
            {embed} --labels labels.csv --same-day exclude --output output/at_labels.parquet
            {embed} --input pretrain_stuff/synthetic_val.pt --map tsne --color-by age --projector
            torchrun --nproc_per_node 2 {embed.program} --input data/population
            """,
        ),
        Command(
            "explain",
            "exmed_bert.settings:ExplainSettings",
            "exmed_bert.analysis.patient.options:check",
            "exmed_bert.analysis.patient.explain:run",
            "Show one patient: visits, codes, the risk as it develops, and what moves it.",
            """
            {explain} --model-dir output/finetune
            {explain} --model-dir output/finetune --patient-id 7 --output-dir output/patient
            {explain} --model-dir output/forecasts --endpoint "E11*" --horizon-days 365 --patient-id 7
            """,
        ),
        Command(
            "analyze",
            "exmed_bert.settings:AnalyzeSettings",
            "exmed_bert.analysis.novel_codes.options:check",
            "exmed_bert.analysis.novel_codes.analyze:run",
            "Analyze a model's embeddings of novel codes and how well it predicts them when they are masked.",
            r"""
            {analyze}
            {analyze} --model-dir output/run_2 --dataset pretrain_stuff/run_2_val.pt \
                --output-dir output/novel_2
            tensorboard --logdir output/novel_codes/projector
            """,
        ),
        Command(
            "hierarchy",
            "exmed_bert.settings:HierarchySettings",
            "exmed_bert.clinvec.hierarchy:check",
            "exmed_bert.clinvec.hierarchy:run",
            "Embed the ICD-10-CM and ATC trees and write the vectors in ClinVec's file format.",
            r"""
            {hierarchy}
            {hierarchy} --output-dir data/hierarchy_64 --dimension 64 --seed 1
            {pretrain} --use-clinvec --clinvec-dir data/hierarchy_embeddings \
                --use-hierarchical-init --resize-if-needed
            """,
        ),
        Command(
            "report",
            "exmed_bert.settings:ReportSettings",
            "exmed_bert.synthetic.report.report:check",
            "exmed_bert.synthetic.report.report:run",
            "Compare patients with published values: people, codes, prescriptions, visits, seasons.",
            """
            {report}
            {report} --input data/large.jsonl.gz --output-dir output/large_report
            """,
        ),
        Command(
            "share",
            "exmed_bert.settings:ShareSettings",
            "exmed_bert.sharing.options:check",
            "exmed_bert.sharing.share:run",
            "Copy a pretrained model without its rare codes, to give it away.",
            r"""
            {share}
            {share} --model-dir output/run_2 --training-data pretrain_stuff/run_2_train.pt \
                --output-dir output/run_2_shared --min-count 50
            """,
        ),
        Command(
            "export",
            "exmed_bert.settings:ExportSettings",
            "exmed_bert.sharing.options:check_export",
            "exmed_bert.sharing.export:run",
            "Export a model: a folder as the Hugging Face Hub has them, or an ONNX file.",
            """
            {export} --hub-folder output/hub
            {export} --onnx output/model.onnx
            {export} --model-dir output/heart_failure --hub-folder output/heart_failure_hub
            {export} --model-dir output/heart_failure --onnx output/heart_failure.onnx
            """,
        ),
    )
}


def run_script(name: str) -> None:
    """Run a command as its script in scripts/."""
    startup.prepare()
    from exmed_bert.cli import script

    script(COMMANDS[name])()


def main() -> None:
    """Run ``exmed-bert`` or ``python -m exmed_bert``."""
    startup.prepare()
    from exmed_bert.cli import console_command

    console_command(COMMANDS.values())()
