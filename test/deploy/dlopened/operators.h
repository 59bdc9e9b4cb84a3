#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "process.h"

/// Calls an operator by its name.
inline c10::IValue call(const std::string& name, std::vector<c10::IValue> stack) {
  const auto found = c10::Dispatcher::singleton().findSchemaOrThrow(("safetensors::" + name).c_str(), "");
  // Later versions may append arguments, always with defaults.
  const auto& arguments = found.schema().arguments();
  while (stack.size() < arguments.size()) {
    stack.push_back(arguments[stack.size()].default_value().value());
  }
  found.callBoxed(stack);
  return stack.empty() ? c10::IValue() : stack.at(0);
}

using Tensors = c10::Dict<std::string, at::Tensor>;

inline Tensors load(const std::string& path) {
  return c10::impl::toTypedDict<std::string, at::Tensor>(
      call("load_file", {path, at::Device(at::kCPU), "pread"}).toGenericDict());
}

inline void save(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& named) {
  Tensors tensors;
  for (const auto& [name, tensor] : named) {
    tensors.insert(name, tensor);
  }
  call("save_file", {tensors, path, c10::IValue(), false});
}

/// The weights that the module and the package load; some tests replace them.
inline std::string weights() { return data("weights.safetensors"); }

inline void save_weights() {
  save(weights(), {{"weight", at::arange(6, at::kFloat).view({2, 3})}, {"bias", at::ones({2})}});
}

/// What `x @ weight.T + bias` is for those weights and an x of ones.
inline at::Tensor expected() { return at::tensor({4.0F, 13.0F}).expand({4, 2}); }
