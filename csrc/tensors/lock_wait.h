#pragma once

#include <string>

namespace torch_safetensors::tensors {

/// An io::OnWait. In a process with the Python package it calls the operator `safetensors::_on_lock_wait`, in
/// which Python looks for signals and raises the notice as a warning; what that raises arrives unchanged
/// where the wait began. In other processes the notice is a warning of torch.
void on_lock_wait(const std::string& notice);

}  // namespace torch_safetensors::tensors
