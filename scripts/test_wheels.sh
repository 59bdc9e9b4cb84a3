#!/usr/bin/env bash
# Builds wheels for several releases of torch, one that holds them all, and tries each with each torch:
# scripts/test_wheels.sh [torch...], where a torch is as in scripts/wheel.sh; by default 2.11.0 and 2.13.0.
source "$(dirname "$0")/common.sh"
if [ $# = 0 ]; then set -- 2.11.0 2.13.0; fi
scripts/setup.sh dev
rm -f dist/*.whl # those of other versions
scripts/wheel.sh "$@"
environments=()
for torch in "$@"; do
  if [ -x "$torch/bin/python" ]; then environments+=("$torch"); else environments+=("$root/build/torch-$torch"); fi
done
WHEELS=$root/dist TORCH_ENVIRONMENTS=$(IFS=:; echo "${environments[*]}") "$python" -m pytest test/python/test_wheels.py
