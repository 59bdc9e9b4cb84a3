#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
say "formatting C++"
scripts/cpp_files.sh | xargs -0 clang-format -i
say "formatting Python"
ruff check --fix .
ruff format .
