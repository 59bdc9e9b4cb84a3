#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <utility>
#include <vector>

extern "C" void torch_safetensors_define_operators();

namespace torch_safetensors::stable {

/// Once for all: torch takes each definition once.
inline void define_operators() {
  [[maybe_unused]] static const bool defined = (torch_safetensors_define_operators(), true);
}

/// Calls an operator of the library on the stable ABI as a program without Python does: by its name, the
/// arguments that are left out by their defaults. Returns what it leaves on the stack.
template <typename... Arguments>
torch::jit::Stack call(const std::string& name, Arguments&&... arguments) {
  define_operators();
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(("safetensors::" + name).c_str(), "");
  torch::jit::Stack stack{c10::IValue(std::forward<Arguments>(arguments))...};
  const auto& declared = handle.schema().arguments();
  for (size_t i = stack.size(); i < declared.size(); ++i) {
    stack.push_back(declared[i].default_value().value());
  }
  handle.callBoxed(stack);
  return stack;
}

using Names = std::vector<std::string>;

inline const c10::IValue kNone;

inline void save_tensors(const std::string& path, Names names, std::vector<at::Tensor> tensors,
                         int64_t alignment = 0) {
  call("save_tensors", path, std::move(names), std::move(tensors), kNone, /*fsync=*/false, /*checksum=*/false,
       alignment == 0 ? kNone : c10::IValue(alignment));
}

inline std::vector<at::Tensor> load_tensors(const std::string& path, Names names,
                                            const std::string& backend) {
  return call("load_tensors", path, std::move(names), c10::Device(c10::kCPU), backend).at(0).toTensorVector();
}

}  // namespace torch_safetensors::stable
