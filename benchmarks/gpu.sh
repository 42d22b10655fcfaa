#!/usr/bin/env bash
# Measures pretraining on one GPU, under 8 minutes on an H100: tests, throughput, attention kernels, compilation.
#
#   bash benchmarks/gpu.sh                        # on the GPU; needs torch, transformers, accelerate, safetensors, numpy
#   bash benchmarks/gpu.sh --parts production     # one part alone
#   bash benchmarks/gpu.sh --device cpu --tiny    # all of it with tiny sizes, to see that it runs
#
# No network, nothing is installed. PYTHON names another interpreter. Results: benchmarks/results/gpu.json, whole after
# each part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
