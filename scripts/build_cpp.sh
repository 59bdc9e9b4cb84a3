#!/usr/bin/env bash
# Builds the C++ side with CMake: scripts/build_cpp.sh <build folder> [cmake options]
source "$(dirname "$0")/common.sh"
folder=$1
shift
# Debug information of lines alone: all of it, with torch's types, takes as long to write as the rest of the compilation.
options=(-DTORCH_SAFETENSORS_WERROR=$werror -DTORCH_SAFETENSORS_PRECOMPILE=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
  -DCMAKE_CXX_FLAGS_DEBUG=-g1 "$@")

# Configuring again changes nothing unless the options do; ninja watches the CMake files.
stamp=$folder/options.stamp
if [ ! -f "$folder/build.ninja" ] || [ "$(cat "$stamp" 2>/dev/null)" != "${options[*]}" ]; then
  say "configuring $folder"
  cmake -S . -B "$folder" "${options[@]}" >build/logs/cmake.log 2>&1 || { cat build/logs/cmake.log; exit 1; }
  echo "${options[*]}" >"$stamp"
fi
say "building the C++ library and its tests in $folder"
cmake --build "$folder"
