#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
scripts/setup.sh build
say "building a wheel into dist/"
rm -rf build/lib* build/bdist* # setuptools would pack what earlier builds left there
"$python" -m pip wheel -qq --no-deps --no-build-isolation --wheel-dir dist .
ls dist/*.whl
