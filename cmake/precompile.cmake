# torch's headers take several times as long to parse as a source of ours that includes them. Here they are parsed once
# for the layers and once for the tests. What a layer forgets to include still shows where setup.py
# compiles it without this; what a test forgets does not.
set(headers
  <ATen/Functions.h> <ATen/core/Tensor.h> <torch/custom_class.h> <torch/library.h>
  <algorithm> <filesystem> <functional> <map> <memory> <mutex> <optional> <span> <string> <thread> <unordered_map>
  <variant> <vector>)
target_precompile_headers(torch_safetensors_tensors PRIVATE ${headers})
foreach(layer modules packages library)
  target_precompile_headers(torch_safetensors_${layer} REUSE_FROM torch_safetensors_tensors)
endforeach()
if(TARGET torch_tests)
  target_precompile_headers(torch_tests PRIVATE ${headers} <gtest/gtest.h>)
endif()
# What ccache needs to recognise them, with the CCACHE_SLOPPINESS of scripts/common.sh.
target_compile_options(torch_safetensors_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
