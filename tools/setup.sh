#!/usr/bin/env bash
# Make the virtual environment that the Makefile's targets run in.
set -euo pipefail

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "ERROR: Tunewright needs Python 3.11 to 3.13. fix: make PYTHON=python3.12" >&2
    exit 2
}
"$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
# Without an NVIDIA driver the CPU build saves gigabytes. It comes from the configured index when that
# has one, otherwise from PyTorch's own; if neither answers, the default build is installed below.
if ! command -v nvidia-smi >/dev/null && [ "$(uname -s)" = Linux ]; then
    "$VENV/bin/python" -m pip install --quiet "torch==2.13.0+cpu" 2>/dev/null ||
        "$VENV/bin/python" -m pip install --quiet "torch>=2.11,<2.14" \
            --index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
fi
"$VENV/bin/python" -m pip install --quiet --editable . --group dev
