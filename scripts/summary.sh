#!/usr/bin/env bash
# The last words of pytest and of ctest in the last `make test`.
source "$(dirname "$0")/common.sh"
say "summary (build/logs/pytest.log, build/logs/ctest.log)"
grep -E ' in [0-9.]+s' build/logs/pytest.log | tail -n 1 || echo "pytest: no summary"
grep 'tests passed' build/logs/ctest.log | tail -n 1 || echo "ctest: no summary"
