#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
status=0
say "clang-format"
scripts/cpp_files.sh | xargs -0 clang-format --dry-run -Werror || status=1
say "the layers of csrc"
"$python" scripts/check_layers.py || status=1
say "ruff"
ruff check . || status=1
ruff format --check . || status=1
say "mypy"
mypy || status=1
exit $status
