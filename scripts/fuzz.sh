#!/usr/bin/env bash
# Read mutated files of every kind that the project reads; the first that is neither read nor refused in one line is shown.
#
#   bash scripts/fuzz.sh                 100,000 inputs
#   bash scripts/fuzz.sh 5000 7          5,000, drawn from the seed 7
#   bash scripts/fuzz.sh 5000 7 -k json  of some targets alone; what is given goes to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export EXMED_BERT_FUZZ_INPUTS=${1:-100000} EXMED_BERT_FUZZ_SEED=${2:-$RANDOM}
echo "inputs: $EXMED_BERT_FUZZ_INPUTS, seed: $EXMED_BERT_FUZZ_SEED"
"${PYTHON:-python}" -m pytest tests/fuzz "${@:3}"
