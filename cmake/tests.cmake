# test/csrc mirrors csrc: the tests of the core build and run without torch.
include(GoogleTest)

# torch_safetensors_test(<name> LAYERS <folder>... LINK <target>...)
function(torch_safetensors_test name)
  cmake_parse_arguments(ARG "" "" "LAYERS;LINK" ${ARGN})
  list(TRANSFORM ARG_LAYERS REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/test/csrc/\\1/*.cpp")
  file(GLOB sources CONFIGURE_DEPENDS ${ARG_LAYERS})
  if(NOT sources)
    message(STATUS "${name}: no tests yet")
    return()
  endif()
  add_executable(${name} ${sources})
  target_include_directories(${name} PRIVATE test/csrc)
  target_link_libraries(${name} PRIVATE ${ARG_LINK} torch_safetensors_flags GTest::gtest_main)
  # PRE_TEST: listed when ctest runs, in ctest's environment, and not as a part of the build.
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 600)
endfunction()

torch_safetensors_test(core_tests LAYERS format io staging LINK torch_safetensors_core)
if(NOT TORCH_SAFETENSORS_CORE_ONLY)
  torch_safetensors_test(torch_tests LAYERS shared tensors modules packages
    LINK torch_safetensors_core torch_safetensors_shared torch_safetensors_tensors torch_safetensors_modules
         torch_safetensors_packages
         torch_safetensors_library)
  if(TARGET torch_tests)
    target_sources(torch_tests PRIVATE test/csrc/io/faults.cpp)
  endif()
endif()
