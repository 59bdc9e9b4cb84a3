#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "format/header.h"
#include "tensors/open_file.h"
#include "tensors/transfer_options.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// All tensors of a file or buffer, in the order of the header, which is that of their data.
struct Loaded {
  format::Header header;
  std::vector<at::Tensor> tensors;
};

/// What the public `load_file` loads.
Loaded load_all(const std::string& filename, at::Device device, std::string_view backend,
                const TransferOptions& options = {}, bool verify = false);

/// What the public `load` loads.
Loaded load_all(const at::Tensor& data, at::Device device, bool copy, bool verify = false);

/// Throws SafetensorError unless the bytes of all tensors have the checksums that the file records.
void verify_file(const std::string& filename);

/// What the public `prefetch` does, of a file that is open. Throws SafetensorError for a name it does not
/// have.
void prefetch(const OpenFile& file, const std::vector<std::string>& names);

/// The names of the tensors, in the order of the data.
std::vector<std::string> names_of(const format::Header& header);

/// The same, as long as the header lives.
std::vector<std::string_view> name_views_of(const format::Header& header);

/// The metadata as operators return it; empty where the header has none.
Metadata metadata_of(const format::Header& header);

}  // namespace torch_safetensors::tensors
