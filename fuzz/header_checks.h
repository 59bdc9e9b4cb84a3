#pragma once

#include <algorithm>
#include <vector>

#include "format/header.h"
#include "format/header_content.h"
#include "format/serialize.h"
#include "format/tensor_size.h"
#include "require.h"

namespace torch_safetensors::fuzz {

/// Bytes of data that the tensors of a header lie in, valid or not.
inline uint64_t data_size_of(const format::HeaderContent& header) {
  uint64_t size = 0;
  for (const format::TensorEntry& tensor : header.tensors) {
    size = std::max(size, tensor.end);
  }
  return size;
}

inline bool same_tensor(const format::TensorEntry& a, const format::TensorEntry& b) {
  return a.name == b.name && a.dtype == b.dtype && std::ranges::equal(a.shape, b.shape) &&
         a.begin == b.begin && a.end == b.end;
}

/// What every `Header` promises to those who hold one.
inline void require_valid(const format::Header& header, uint64_t data_size) {
  uint64_t position = 0;
  for (const format::TensorEntry& tensor : header.tensors()) {
    require(tensor.begin == position && tensor.end >= tensor.begin, "tensors lie back to back");
    require(format::tensor_nbytes(tensor.dtype, tensor.shape) == tensor.nbytes(), "sizes agree with shapes");
    require(header.find(tensor.name) == &tensor, "a tensor is found by its name");
    position = tensor.end;
  }
  require(position == data_size, "tensors cover the data");
  const auto sorted = header.by_name();
  require(sorted.size() == header.tensors().size(), "by_name has all tensors");
  for (size_t i = 1; i < sorted.size(); ++i) {
    require(header.tensors()[sorted[i - 1]].name < header.tensors()[sorted[i]].name,
            "names are sorted and unique");
  }
}

/// The header has the tensors that were written, in the order that was announced.
inline void require_announced(const format::Header& header, std::span<const format::TensorSpec> specs,
                              std::span<const size_t> order) {
  require(header.tensors().size() == specs.size(), "every tensor is written");
  for (size_t i = 0; i < specs.size(); ++i) {
    const format::TensorEntry& tensor = header.tensors()[i];
    const format::TensorSpec& spec = specs[order[i]];
    require(tensor.name == spec.name && tensor.dtype == spec.dtype &&
                std::ranges::equal(tensor.shape, spec.shape),
            "what is written is read");
  }
}

/// What is written from a header is read as the same tensors, in our order.
inline void require_round_trip(const format::Header& header) {
  std::vector<format::TensorSpec> specs;
  for (const format::TensorEntry& tensor : header.tensors()) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  const format::Metadata* const metadata = header.metadata() ? &*header.metadata() : nullptr;
  const format::SerializedHeader written = format::serialize_header(specs, metadata);
  const uint64_t size = format::parse_header_size(written.bytes, written.bytes.size() + written.data_size);
  require(size + format::kPrefixSize == written.bytes.size(), "the length field is right");
  const format::Header again =
      format::parse_header(std::string_view(written.bytes).substr(format::kPrefixSize), written.data_size);
  require_valid(again, written.data_size);
  require(again.metadata() == header.metadata(), "metadata is read as it was");
  require_announced(again, specs, written.order);
}

}  // namespace torch_safetensors::fuzz
