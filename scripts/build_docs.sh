#!/usr/bin/env bash
# Build the site of the documents, output/site/index.html, and check every link in it. Nothing uses the network.
#
#   bash scripts/build_docs.sh

# shellcheck source=scripts/setup_environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build "$@" || exit # --quiet would not stop at warnings
echo "Site: output/site/index.html"
