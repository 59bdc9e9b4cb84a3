#!/usr/bin/env bash
# Runs each fuzzer for FUZZ_SECONDS under address and undefined-behaviour sanitizers, as many at once as there are
# cores. What they find is added to build/fuzz/corpus, where the next run goes on; an input that breaks something lands
# in build/fuzz/broken. FUZZ_COVERAGE=1 also shows how much of csrc/format the corpus reaches; BUILD_ONLY=1 compiles the
# fuzzers and stops there.
source "$(dirname "$0")/common.sh"
scripts/setup.sh fuzz
export CXX=clang++-19
seconds=${FUZZ_SECONDS:-60}
torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
# clang warns of what libstdc++ itself does: g++ is the one whose warnings are errors.
options=(-DTORCH_SAFETENSORS_BUILD_TESTS=OFF -DTORCH_SAFETENSORS_BUILD_FUZZERS=ON -DTORCH_SAFETENSORS_WERROR=OFF)
scripts/build_cpp.sh build/fuzz/address "${options[@]}" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  "-DCMAKE_CXX_FLAGS=-D_GLIBCXX_ASSERTIONS -fsanitize-ignorelist=$root/fuzz/sanitizer_ignore.txt" \
  -DTORCH_SAFETENSORS_SANITIZE=address,undefined,fuzzer-no-link \
  "-DCMAKE_PREFIX_PATH=$torch"
if [ -n "${BUILD_ONLY:-}" ]; then exit; fi
"$python" fuzz/make_corpus.py build/fuzz/corpus
mkdir -p build/fuzz/broken

# torch is not instrumented: what it puts into a vector of ours, the sanitizer does not see. And it reports itself when
# there is no memory.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_container_overflow=0:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

fuzz() {
  local options=(-max_total_time="$2" -max_len=4096 -timeout=10 -rss_limit_mb=3000 -print_final_stats=1
    "-artifact_prefix=build/fuzz/broken/$1-")
  case $1 in header | index | file) options+=(-dict=fuzz/safetensors.dict) ;; esac
  if ! "build/fuzz/address/$1_fuzzer" "${options[@]}" "build/fuzz/corpus/$1" >"build/logs/fuzz-$1.log" 2>&1; then
    printf 'error: the %s fuzzer found something:\n' "$1"
    tail -n 40 "build/logs/fuzz-$1.log"
    return 1
  fi
  printf '%s: %s executions, %s inputs reach something of their own\n' "$1" \
    "$(sed -n 's/.*number_of_executed_units: *//p' "build/logs/fuzz-$1.log")" "$(ls "build/fuzz/corpus/$1" | wc -l)"
}
export -f fuzz

say "fuzzing for $seconds seconds each (build/logs/fuzz-*.log)"
printf '%s\n' header index writer file slice |
  xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} bash -c 'fuzz {} '"$seconds"

if [ -n "${FUZZ_COVERAGE:-}" ]; then
  scripts/build_cpp.sh build/fuzz/coverage "${options[@]}" -DTORCH_SAFETENSORS_CORE_ONLY=ON -DCMAKE_BUILD_TYPE=Debug \
    "-DCMAKE_CXX_FLAGS=-fprofile-instr-generate -fcoverage-mapping" -DTORCH_SAFETENSORS_SANITIZE=fuzzer-no-link
  programs=build/fuzz/coverage
  for fuzzer in header index writer; do
    LLVM_PROFILE_FILE=$programs/$fuzzer.profraw "$programs/${fuzzer}_fuzzer" -runs=0 "build/fuzz/corpus/$fuzzer" \
      >"build/logs/coverage-$fuzzer.log" 2>&1
  done
  llvm-profdata-19 merge -o $programs/all.profdata $programs/*.profraw
  say "coverage of csrc/format (line by line in build/logs/coverage.txt)"
  sources=("$programs/header_fuzzer" -object "$programs/index_fuzzer" -object "$programs/writer_fuzzer" "-instr-profile=$programs/all.profdata" csrc/format)
  llvm-cov-19 show "${sources[@]}" >build/logs/coverage.txt
  llvm-cov-19 report "${sources[@]}" | sed "s|$root/||"
fi
