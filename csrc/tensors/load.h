#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "format/header.h"
#include "tensors/checkpoint.h"
#include "tensors/transfer_options.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// All tensors of a checkpoint or buffer, in the order of their data.
struct Loaded {
  /// What the names belong to.
  std::variant<std::unique_ptr<Checkpoint>, format::Header> owner;
  std::vector<std::string_view> names;
  std::vector<at::Tensor> tensors;
};

/// What the public `load_file` loads.
Loaded load_all(const std::string& filename, at::Device device, std::string_view backend,
                const TransferOptions& options = {}, bool verify = false, bool strict_index = true);

/// What the public `load` loads.
Loaded load_all(const at::Tensor& data, at::Device device, bool copy, bool verify = false);

/// Throws SafetensorError unless the bytes of all tensors have the checksums that their files record.
void verify_file(const std::string& filename);

/// What the public `prefetch` does, of a file that is open. Throws SafetensorError for a name it does not
/// have.
void prefetch(const Checkpoint& file, const std::vector<std::string>& names);

/// The names of entries, which live as long as these.
std::vector<std::string_view> names_of(std::span<const format::TensorEntry* const> entries);

}  // namespace torch_safetensors::tensors
