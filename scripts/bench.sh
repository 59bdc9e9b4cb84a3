#!/usr/bin/env bash
# Measures the package next to other loaders. Each of those goes into a folder of its own below
# build/peers, never into the environment: two releases of one package are among them.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
scripts/setup.sh model || say "no real model: the case with transformers is left out"
"$python" scripts/build_python.py

for pins in requirements/bench/*.txt; do
  folder=build/peers/$(basename "$pins" .txt)
  if cmp -s "$pins" "$folder/pins.txt"; then continue; fi
  say "installing into $folder"
  rm -rf "$folder"
  # One that cannot be had is missing from the table, no more.
  if "$python" -m pip install -qq --no-deps --target "$folder" -r "$pins"; then cp "$pins" "$folder/pins.txt"; fi
done

say "measuring (python -m benchmarks --help)"
"$python" -m benchmarks ${BENCH_ARGS:-}
