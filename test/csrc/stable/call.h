#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <utility>
#include <vector>

extern "C" void torch_safetensors_define_operators();

namespace torch_safetensors::stable {

/// Calls an operator of the library on the stable ABI as a program without Python does: by its name, with all its
/// arguments. Returns what it leaves on the stack.
template <typename... Arguments>
torch::jit::Stack call(const std::string& name, Arguments&&... arguments) {
  [[maybe_unused]] static const bool defined = (torch_safetensors_define_operators(), true);
  torch::jit::Stack stack{c10::IValue(std::forward<Arguments>(arguments))...};
  c10::Dispatcher::singleton().findSchemaOrThrow(("safetensors::" + name).c_str(), "").callBoxed(stack);
  return stack;
}

using Names = std::vector<std::string>;

inline const c10::IValue kNone;

inline void save_tensors(const std::string& path, Names names, std::vector<at::Tensor> tensors,
                         int64_t alignment = 0) {
  call("save_tensors", path, std::move(names), std::move(tensors), kNone, /*fsync=*/false, /*checksum=*/false,
       alignment == 0 ? kNone : c10::IValue(alignment));
}

inline std::vector<at::Tensor> load_tensors(const std::string& path, Names names, const std::string& backend) {
  return call("load_tensors", path, std::move(names), c10::Device(c10::kCPU), backend, /*expect=*/kNone,
              /*exact=*/false, /*verify=*/false)
      .at(0)
      .toTensorVector();
}

}  // namespace torch_safetensors::stable
