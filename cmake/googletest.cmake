# The system's GoogleTest where it has one, a pinned release otherwise.
include(FetchContent)

find_package(GTest CONFIG QUIET)
if(NOT GTest_FOUND)
  message(STATUS "GoogleTest is not installed (Debian: libgtest-dev): fetching 1.14.0")
  set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
  FetchContent_Declare(googletest
    URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    URL_HASH SHA256=8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7)
  FetchContent_MakeAvailable(googletest)
endif()
