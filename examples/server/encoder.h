#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

/// A sentence encoder whose weights can be swapped while it runs. Safe from several threads.
class Encoder {
 public:
  virtual ~Encoder() = default;

  /// (sentences, tokens) int64, twice -> (sentences, 384) float32. See tokens.h for what they must hold.
  virtual at::Tensor encode(const at::Tensor& input_ids, const at::Tensor& attention_mask) = 0;

  /// Has requests that begin from now on answered by the weights of another file. Throws, and the old ones
  /// stay, where that has not the tensors it needs.
  virtual void swap(const std::string& weights) = 0;
};

/// From an AOTInductor package without weights. So many requests as it has runners are computed at once.
std::unique_ptr<Encoder> package_encoder(const std::string& package, const std::string& weights,
                                         size_t runners);

/// From a TorchScript module.
std::unique_ptr<Encoder> script_encoder(const std::string& module, const std::string& weights);
