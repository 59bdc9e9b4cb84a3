#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/serialize.h"
#include "stable/new_tensor.h"

namespace torch_safetensors::stable {

/// A save whose arguments are checked and whose header is made; what is left is to write it. Tensors that lie
/// on other devices, and lazy conjugate and negative views, are copied for it.
class SavePlan {
 public:
  /// `metadata` is flat: key, value, key, value. Throws std::invalid_argument for what cannot be saved, and
  /// std::runtime_error for tensors that share memory.
  SavePlan(std::vector<std::string> names, std::vector<Tensor> tensors,
           const std::optional<std::vector<std::string>>& metadata, int64_t alignment);

  /// Writes the whole file atomically (io/atomic_file.h). Returns what the caller is to be warned of, or
  /// nothing.
  [[nodiscard]] std::string write_to(const std::string& filename, bool fsync) const;

  /// The whole file as a 1-D uint8 tensor.
  Tensor to_bytes() const;

 private:
  std::vector<std::span<const std::byte>> pieces() const;

  std::vector<std::string> names_;
  std::vector<Tensor> tensors_;
  format::SerializedHeader header_;
};

}  // namespace torch_safetensors::stable
