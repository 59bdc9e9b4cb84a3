# Sourced by the other scripts: where things lie, and the Python environment in use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The active virtual environment, else one of our own.
export VIRTUAL_ENV=${VIRTUAL_ENV:-$root/.venv}
# Some shells leave out where Debian keeps ip and tc.
export PATH=$VIRTUAL_ENV/bin:$PATH:/usr/sbin:/sbin
python=$VIRTUAL_ENV/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 CMAKE_GENERATOR=Ninja
mkdir -p build/logs

# ccache, where there is one. Relative paths let clones in different folders share what it holds.
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
  export CCACHE_SLOPPINESS=pch_defines,time_macros
fi

# Warnings are errors in CI only: a newcomer's compiler may know others than ours.
werror=OFF
if [ "${CI:-}" = true ]; then werror=ON; fi
