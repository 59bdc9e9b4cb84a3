#!/usr/bin/env bash
# The long form of the tests that repeat something until it breaks: about ten minutes.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
"$python" scripts/build_python.py
say "running them"
export TORTURE=1 DIFFERENTIAL_CASES=${DIFFERENTIAL_CASES:-200000}
"$python" -m pytest -s test/python/test_{system_calls,endurance,differential,any_arguments,checkpoint_versions}.py ${PYTEST_ARGS:-}
