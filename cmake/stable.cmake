# The library on torch's stable ABI: the operators on lists, for releases of torch that the other one was not built for.
# TORCH_STABLE_ONLY hides every header of torch that does not belong to that ABI, and so keeps csrc/stable and
# csrc/shared, which both libraries have, to it. 2.11 is the oldest release that has all it needs (setup.py says the same).
torch_safetensors_layer(stable torch_safetensors_format torch_safetensors_io torch_safetensors_shared)
foreach(layer shared stable)
  target_compile_definitions(torch_safetensors_${layer} PRIVATE
    TORCH_STABLE_ONLY TORCH_TARGET_VERSION=0x020b000000000000)
endforeach()

add_library(torch_safetensors_stable_library SHARED)
target_link_libraries(torch_safetensors_stable_library
  PRIVATE torch_safetensors_format torch_safetensors_io torch_safetensors_shared torch_safetensors_stable
          torch_safetensors::libtorch)
set_target_properties(torch_safetensors_stable_library PROPERTIES
  OUTPUT_NAME torch_safetensors_stable
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib
  SUFFIX .so
  LINKER_LANGUAGE CXX
  INSTALL_RPATH ${TORCH_SAFETENSORS_TORCH_PREFIX}/lib)
