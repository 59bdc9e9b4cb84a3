#!/usr/bin/env bash
# The C++ tests and the programs of test/deploy and examples/server under sanitizers; SANITIZE=thread for the other kind,
# of the tests and of the program that runs and swaps packages. BUILD_ONLY=1 compiles the tests and stops there.
# torch itself is not instrumented, which address and undefined cope with. The thread sanitizer sees no barrier of
# torch's OpenMP threads: there are none in its run.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
kind=${SANITIZE:-address,undefined}
folder=build/sanitize-${kind//,/-}
torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
scripts/build_cpp.sh "$folder" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS=-O1 "-DTORCH_SAFETENSORS_SANITIZE=$kind" \
  "-DCMAKE_PREFIX_PATH=$torch"
if [ -n "${BUILD_ONLY:-}" ]; then exit; fi
if [ "$kind" = thread ]; then export OMP_NUM_THREADS=1; fi
# The runtime of gcc before 14 takes a thread's memory that happens to begin 16 bytes after a page for that of an old
# glibc, and looks for leaks at addresses that it makes of it: https://github.com/google/sanitizers/issues/1322
export ASAN_OPTIONS=${ASAN_OPTIONS:-intercept_tls_get_addr=0}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$root/test/deploy/leaks.txt:print_suppressions=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
say "running ctest under $kind"
ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$(getconf _NPROCESSORS_ONLN)" ${CTEST_ARGS:-}
"$python" scripts/build_python.py
programs=(test/python/test_deploy.py test/python/test_server.py -k "not documented")
if [ "$kind" = thread ]; then programs=(test/python/test_deploy.py -k test_linked); fi
say "running the deployed programs under $kind"
SANITIZE=$kind "$python" -m pytest -q "${programs[@]}"
