#!/usr/bin/env bash
# The C++ tests under sanitizers. torch itself is not instrumented: address and undefined cope with
# that, thread would report every lock it cannot see, so there only the tests of the core run.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
kind=${SANITIZE:-address,undefined}
folder=build/sanitize-${kind//,/-}
options=(-DCMAKE_BUILD_TYPE=Debug "-DTORCH_SAFETENSORS_SANITIZE=$kind")
if [ "$kind" = thread ]; then
  options+=(-DTORCH_SAFETENSORS_CORE_ONLY=ON)
else
  torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
  options+=("-DCMAKE_PREFIX_PATH=$torch")
fi
scripts/build_cpp.sh "$folder" "${options[@]}"
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
say "running ctest under $kind"
ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$(getconf _NPROCESSORS_ONLN)" ${CTEST_ARGS:-}
