#!/usr/bin/env bash
# Set up the environment and run the tests; what is given goes to pytest.
#
#   bash scripts/run_tests.sh -k wrappers

# shellcheck source=scripts/setup_environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
"$python" -m pytest -n 2 --dist loadfile "$@" # two files at a time: most tests wait for programs they start
