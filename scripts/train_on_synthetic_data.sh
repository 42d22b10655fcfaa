#!/usr/bin/env bash
# Generate synthetic patients, convert them to datasets and pretrain ExMed-BERT on them; --help shows the arguments.
# train_on_synthetic_data.bat does the same; change both together.

usage() {
    cat <<'EOF'
Usage: scripts/train_on_synthetic_data.sh [patients] [novel_prob] [max_len] [seed]

Generates synthetic patients, converts them to datasets and pretrains ExMed-BERT on them.

  patients    how many, a whole number of at least 1 (as shipped: 1000)
  novel_prob  probability of a novel code, a number from 0 to 1 (as shipped: 0.01)
  max_len     most codes per patient, a whole number of at least 2 (as shipped: 50)
  seed        random seed, a whole number of at least 0 (as shipped: 42)

What is not given, or is "", comes from config.yaml in the project's folder, as do all other settings.
EOF
}

wrong_argument() {
    echo "Error: $1" >&2
    exit 2
}

check_whole() { # name, value, smallest
    [ -z "$2" ] || { [[ $2 =~ ^[0-9]+$ ]] && ((10#$2 >= $3)); } ||
        wrong_argument "$1: expected a whole number of at least $3, got \"$2\""
}

check_probability() { # name, value
    [ -z "$2" ] || [[ $2 =~ ^(0|1|1\.0+|0?\.[0-9]+)$ ]] ||
        wrong_argument "$1: expected a number from 0 to 1, such as 0.01, got \"$2\""
}

run_step() { # number, what it does, what to look at when it fails, script and its options
    echo
    echo "Step $1 of 3: $2"
    "$python" "${@:4}" && return
    code=$?
    echo "Error: step $1 of 3 failed with exit code $code; see the message above and $3" >&2
    exit "$code"
}

case ${1-} in -h | --help) usage && exit ;; esac
patients=${1-} novel_prob=${2-} max_len=${3-} seed=${4-}
[ $# -le 4 ] || wrong_argument "unexpected argument \"$5\"; expected at most patients, novel_prob, max_len, seed"
check_whole patients "$patients" 1
check_probability novel_prob "$novel_prob"
check_whole max_len "$max_len" 2
check_whole seed "$seed" 0

# shellcheck source=scripts/setup_environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"

settings=$("$python" scripts/_wrapper_settings.py "$patients" "$novel_prob" "$max_len" "$seed") || exit
while IFS='=' read -r key value; do
    declare "$key=$value"
done <<<"$settings"

# shellcheck disable=SC2154  # the variables come from _wrapper_settings.py
{
    run_step 1 "generating $num_patients synthetic patients (novel codes: $novel_prob)" \
        "the section 'generate' of config.yaml" \
        scripts/generate_synthetic_patients.py --num-patients "$num_patients" --novel-prob "$novel_prob" \
        --seed "$generate_seed" --output "$patients_file"

    run_step 2 "converting them to datasets of at most $max_length codes per patient ($masking)" \
        "the section 'convert' of config.yaml" \
        scripts/convert_synthetic_to_dataset.py --input "$patients_file" --output "$dataset" --split all \
        --max-length "$max_length" "$masking" --seed "$convert_seed"

    run_step 3 "pretraining ExMed-BERT on them" \
        "$output_dir/output.log" \
        scripts/pretrain-exmed-bert-clinvec.py --training-data "$training_data" --validation-data "$validation_data" \
        --output-dir "$output_dir" --output-data-dir "$output_data_dir" \
        --max-seq-length "$max_length" "$masking" --seed "$pretrain_seed"

    cat <<EOF

Done. Written in "$PWD":
  $patients_file  the patients
  $training_data  the training dataset
  $validation_data  the validation dataset
  $conversion_page  a page about both, to open in a browser
  $output_dir  the model, its checkpoints and output.log
  $output_data_dir  the metrics, TensorBoard's and MLflow's records

Next, in that folder; each of the first four writes a page to open in a browser, or a table:
  Compare the patients with published values (output/synthetic_report/report.html):
    ${tools}python scripts/report_synthetic_data.py --input "$patients_file" --output-dir output/synthetic_report
  Fine-tune the model to a prolonged stay, and compare it with baselines (output/finetune/report.html):
    ${tools}python scripts/finetune-exmed-bert.py --task plos --model-dir "$output_dir" --input "$patients_file" --output-dir output/finetune
  See what the model makes of novel codes (output/novel_codes/report.html):
    ${tools}python scripts/analyze_novel_codes.py --model-dir "$output_dir" --dataset "$validation_data" --output-dir output/novel_codes
  Embed the patients, a vector for each (output/embeddings.parquet):
    ${tools}python scripts/embed_patients.py --model-dir "$output_dir" --input "$patients_file" --output output/embeddings.parquet
  Read the metrics:
    cat "$output_data_dir/eval_results.txt"
  See the training curves:
    ${tools}tensorboard --logdir "$output_data_dir/logs"
  Compare runs, at http://127.0.0.1:5000/#/experiments/1/runs:
    MLFLOW_DISABLE_TELEMETRY=true ${tools}mlflow ui --backend-store-uri "sqlite:///$output_data_dir/mlruns.db"
  Pretrain from ClinVec's embeddings, once they are downloaded (docs/CLINVEC.md):
    ${tools}python scripts/pretrain-exmed-bert-clinvec.py --training-data "$training_data" --validation-data "$validation_data" --output-dir output/with_clinvec --output-data-dir output/with_clinvec_data --max-seq-length $max_length $masking --use-clinvec --clinvec-dir ../ClinVec --use-hierarchical-init --resize-if-needed
EOF
}
