#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
scripts/setup.sh build
"$python" scripts/build_python.py
say "running examples/demo.py"
"$python" examples/demo.py
