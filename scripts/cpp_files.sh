#!/usr/bin/env bash
# Lists our C++ files, each followed by a NUL.
source "$(dirname "$0")/common.sh"
find csrc test examples benchmarks fuzz \( -name '*.h' -o -name '*.cpp' \) -print0 2>/dev/null || true
