#!/usr/bin/env bash
source "$(dirname "$0")/common.sh"
say "deleting what was built"
rm -rf dist ./*.egg-info torch_safetensors/{include,lib,share} .{pytest,mypy,ruff}_cache
find build -mindepth 1 -maxdepth 1 ! -name model -exec rm -rf {} +
if [ "${1:-}" = all ]; then
  say "deleting .venv and the model"
  rm -rf build .venv
fi
