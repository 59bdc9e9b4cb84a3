# The programs of fuzz/, with clang's libFuzzer. All of the library has to be built with
# -DTORCH_SAFETENSORS_SANITIZE=address,undefined,fuzzer-no-link, so that they see which lines an input reaches.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "the fuzzers need clang: -DCMAKE_CXX_COMPILER=clang++")
endif()

# torch_safetensors_fuzzer(<name> <target>...): fuzz/<name>_fuzzer.cpp
function(torch_safetensors_fuzzer name)
  add_executable(${name}_fuzzer fuzz/${name}_fuzzer.cpp)
  target_link_libraries(${name}_fuzzer PRIVATE ${ARGN} torch_safetensors_flags)
  target_link_options(${name}_fuzzer PRIVATE -fsanitize=fuzzer)
endfunction()

torch_safetensors_fuzzer(header torch_safetensors_core)
torch_safetensors_fuzzer(index torch_safetensors_core)
torch_safetensors_fuzzer(writer torch_safetensors_core)
if(NOT TORCH_SAFETENSORS_CORE_ONLY)
  set(layers torch_safetensors_core torch_safetensors_shared torch_safetensors_tensors torch_safetensors_modules
    torch_safetensors_packages torch_safetensors_library)
  torch_safetensors_fuzzer(file ${layers})
  torch_safetensors_fuzzer(slice ${layers})
endif()
