#!/usr/bin/env bash
# Builds wheels into dist/: scripts/wheel.sh [torch...]
# Without arguments one for the torch of the environment in use, dist/torch_safetensors-<version>+torch<release>-*.whl.
# With arguments one for each, and dist/torch_safetensors-<version>-*.whl that holds all their libraries. A torch is a
# version to install into an environment of its own, in build/, as 2.11.0; or the folder of an environment that has one.
source "$(dirname "$0")/common.sh"

# build_wheel <folder>: with the environment in VIRTUAL_ENV
build_wheel() {
  scripts/setup.sh build
  rm -rf build/lib* build/bdist* # setuptools would pack what earlier builds left there
  "$VIRTUAL_ENV/bin/python" -m pip wheel -qq --no-deps --no-build-isolation --wheel-dir "$1" .
}

if [ $# = 0 ]; then
  say "building a wheel into dist/"
  build_wheel dist
  ls dist/*.whl
  exit
fi

scripts/setup.sh build
rm -rf build/wheels
for torch in "$@"; do
  environment=$torch
  if [ ! -x "$environment/bin/python" ]; then
    environment=$root/build/torch-$torch
    if ! "$environment/bin/python" -c 'import torch' 2>/dev/null; then
      say "installing torch $torch into build/torch-$torch"
      "$python" -m venv --clear "$environment"
      "$environment/bin/python" -m pip install -qq -c <(grep -v '^torch==' requirements/torch.txt) "torch==$torch"
    fi
  fi
  say "building a wheel for the torch in $environment"
  VIRTUAL_ENV=$environment build_wheel build/wheels
done
mkdir -p dist
cp build/wheels/*.whl dist
"$python" scripts/merge_wheels.py dist build/wheels/*.whl
ls dist/*.whl
