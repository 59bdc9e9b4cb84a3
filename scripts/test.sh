#!/usr/bin/env bash
# Builds everything and runs every test; the last two lines are the runners' own summaries.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
scripts/setup.sh model || say "no real model: the tests marked 'model' will be skipped"
scripts/setup.sh clients || say "packages are missing: some tests marked 'clients' will be skipped"
scripts/setup.sh plot || say "no Chromium: the tests marked 'browser' will be skipped"
"$python" scripts/build_python.py
torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
scripts/build_cpp.sh build/cpp -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_PREFIX_PATH=$torch"

# Both run even if the first fails.
status=0
say "running ctest"
ctest --test-dir build/cpp --output-on-failure --no-tests=error -j "$(getconf _NPROCESSORS_ONLN)" ${CTEST_ARGS:-} 2>&1 |
  tee build/logs/ctest.log || status=1
say "running pytest"
"$python" -m pytest ${PYTEST_ARGS:-} 2>&1 | tee build/logs/pytest.log || status=1

scripts/summary.sh
exit $status
