#!/usr/bin/env bash
# The long form of the tests that repeat something until it breaks: about ten minutes.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
"$python" scripts/build_python.py
say "running them"
export TORTURE=1 DIFFERENTIAL_CASES=${DIFFERENTIAL_CASES:-200000}
tests=(test_system_calls test_endurance test_differential test_any_arguments)
"$python" -m pytest -s $(printf "test/python/%s.py " "${tests[@]}") ${PYTEST_ARGS:-}
