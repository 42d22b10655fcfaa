#!/usr/bin/env bash
# Make .venv in the project's folder and install requirements.txt, when needed.
# An active virtual or conda environment that has the packages is used as it is.
#
#   bash scripts/setup_environment.sh
#
# The other scripts source this file; it gives them $python, and $tools, the folder of tensorboard and mlflow.
# setup_environment.bat does the same; change both together.

# shellcheck disable=SC2034  # tools is for the scripts that source this file

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=.venv/bin/python
tools=.venv/bin/
stamp=.venv/requirements.stamp # requirements.txt as installed; empty while a set-up is under way

runs() { "$python" scripts/_check_python.py >/dev/null 2>&1; }
interrupted() { [ -e "$stamp" ] && [ ! -s "$stamp" ]; }

# Set `python` to an active environment that has the packages; .venv itself goes by its stamp.
find_active() {
    local prefix
    for prefix in "${VIRTUAL_ENV-}" "${CONDA_PREFIX-}"; do
        if [ -z "$prefix" ] || [ ! -x "$prefix/bin/python" ] || [ "$prefix" -ef .venv ]; then continue; fi
        if "$prefix/bin/python" scripts/_check_python.py --packages >/dev/null; then
            python=$prefix/bin/python tools=''
            return 0
        fi
    done
    return 1
}

# Set `base` to the first fit Python, or say why there is none.
find_base() {
    local candidate unfit=''
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11; do
        case $("$candidate" scripts/_check_python.py 2>/dev/null) in
            fit) base=$candidate && return ;;
            unfit) unfit=${unfit:-$candidate} ;;
        esac
    done
    if [ -n "$unfit" ]; then
        "$unfit" scripts/_check_python.py >/dev/null
    else
        echo "Error: Python was not found; Python 3.11 or newer, 64-bit, is needed: https://www.python.org/downloads/" >&2
    fi
    exit 1
}

make_venv() {
    find_base
    echo "Making .venv with $base"
    rm -rf .venv
    mkdir .venv && : >"$stamp" && "$base" -m venv .venv && return
    echo "Error: .venv could not be made; see the message above (on Debian and Ubuntu: apt install python3-venv)" >&2
    exit 1
}

install_packages() {
    echo "Installing the packages of requirements.txt in .venv; the first time this takes several minutes and several GB"
    : >"$stamp"
    "$python" -m pip install --disable-pip-version-check -r requirements.txt && cp requirements.txt "$stamp" && return
    echo "Error: the packages could not be installed; see the message above, then run the same command again" >&2
    exit 1
}

if find_active; then
    echo "Environment: the active one, \"$python\""
else
    if interrupted || ! runs; then make_venv; fi
    cmp -s requirements.txt "$stamp" || install_packages
    echo "Environment: .venv"
fi
