#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
scripts/setup.sh build
"$python" scripts/fetch_model.py
"$python" scripts/build_python.py
say "running scripts/demo.py"
"$python" scripts/demo.py
