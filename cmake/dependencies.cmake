# Third-party parts: the system's where it has them, a pinned release otherwise. torch stands apart,
# in FindLibTorch.cmake.
include(FetchContent)

# For every target of ours that parses or writes JSON. An interface library of its own keeps the
# directory away from the others.
find_path(RAPIDJSON_INCLUDE_DIR rapidjson/reader.h HINTS $ENV{RAPIDJSON_INCLUDE_DIR}
  DOC "The folder that holds rapidjson/reader.h")
if(NOT RAPIDJSON_INCLUDE_DIR)
  message(STATUS "RapidJSON is not installed (Debian: rapidjson-dev): fetching 1.1.0")
  FetchContent_Declare(rapidjson
    URL https://github.com/Tencent/rapidjson/archive/refs/tags/v1.1.0.tar.gz
    URL_HASH SHA256=bf7ced29704a1e696fbccf2a2b4ea068e7774fa37f6d7dd4039d0787f8bed98e
    SOURCE_SUBDIR none) # its own CMakeLists is for a CMake of 2014 and wants to build its tests
  FetchContent_MakeAvailable(rapidjson)
  set(RAPIDJSON_INCLUDE_DIR ${rapidjson_SOURCE_DIR}/include)
endif()
add_library(torch_safetensors_rapidjson INTERFACE)
target_include_directories(torch_safetensors_rapidjson SYSTEM INTERFACE ${RAPIDJSON_INCLUDE_DIR})

# The hash of checksums; a header is all of it that is used.
find_path(XXHASH_INCLUDE_DIR xxhash.h HINTS $ENV{XXHASH_INCLUDE_DIR} DOC "The folder that holds xxhash.h")
if(NOT XXHASH_INCLUDE_DIR)
  message(STATUS "xxHash is not installed (Debian: libxxhash-dev): fetching 0.8.3")
  FetchContent_Declare(xxhash
    URL https://github.com/Cyan4973/xxHash/archive/refs/tags/v0.8.3.tar.gz
    URL_HASH SHA256=aae608dfe8213dfd05d909a57718ef82f30722c392344583d3f39050c7f29a80
    SOURCE_SUBDIR none)
  FetchContent_MakeAvailable(xxhash)
  set(XXHASH_INCLUDE_DIR ${xxhash_SOURCE_DIR})
endif()
add_library(torch_safetensors_xxhash INTERFACE)
target_include_directories(torch_safetensors_xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE_DIR})

if(TORCH_SAFETENSORS_BUILD_TESTS)
  include(cmake/googletest.cmake)
endif()
