#include "stable/save.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <tuple>

#include "format/text.h"
#include "io/atomic_file.h"
#include "shared/filename.h"
#include "stable/check_savable.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::stable {
namespace {

/// Tensors as they will stand in the header, where F4 counts elements.
std::vector<format::TensorSpec> specs_of(const std::vector<std::string>& names,
                                         const std::vector<Tensor>& tensors,
                                         std::vector<std::vector<int64_t>>& shapes) {
  std::vector<format::TensorSpec> specs;
  shapes.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const format::DType dtype = *shared::to_dtype(tensors[i].scalar_type());
    const auto sizes = tensors[i].sizes();
    std::vector<int64_t>& shape = shapes.emplace_back(sizes.begin(), sizes.end());
    if (!shape.empty()) {
      shape.back() *= shared::packing(dtype);
    }
    specs.push_back({names[i], dtype, shape});
  }
  return specs;
}

std::optional<format::Metadata> to_metadata(const std::optional<std::vector<std::string>>& flat) {
  if (!flat) {
    return std::nullopt;
  }
  if (flat->size() % 2 != 0) {
    throw std::invalid_argument("metadata must alternate keys and values, but has " +
                                std::to_string(flat->size()) + " entries");
  }
  format::MetadataBuilder builder;
  for (size_t i = 0; i < flat->size(); i += 2) {
    builder.add((*flat)[i], (*flat)[i + 1]);
  }
  return std::move(builder).build();
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  const size_t nbytes = tensor.numel() * tensor.element_size();
  return {static_cast<const std::byte*>(nbytes == 0 ? nullptr : tensor.const_data_ptr()), nbytes};
}

}  // namespace

SavePlan::SavePlan(std::vector<std::string> names, std::vector<Tensor> tensors,
                   const std::optional<std::vector<std::string>>& metadata, int64_t alignment)
    : names_(std::move(names)), tensors_(std::move(tensors)) {
  make_savable(names_, tensors_);
  const std::optional<format::Metadata> pairs = to_metadata(metadata);
  std::vector<std::vector<int64_t>> shapes;
  try {
    header_ =
        format::serialize_header(specs_of(names_, tensors_, shapes), pairs ? &*pairs : nullptr, alignment);
  } catch (const SafetensorError& error) {
    // What a file cannot hold is here an argument that is wrong.
    throw std::invalid_argument(error.what());
  }
}

std::vector<std::span<const std::byte>> SavePlan::pieces() const {
  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header_.bytes))};
  pieces.reserve(1 + tensors_.size());
  for (const size_t index : header_.order) {
    pieces.push_back(bytes_of(tensors_[index]));
  }
  return pieces;
}

std::string SavePlan::write_to(const std::string& filename, bool fsync) const {
  const std::optional<std::string> path = shared::decode_filename(filename);
  if (!path) {
    throw std::invalid_argument("embedded null character in path");
  }
  io::AtomicFile file(*path, fsync);
  file.write(pieces());
  if (file.commit() == io::Commit::kRenamed) {
    return {};
  }
  return format::printable(*path) +
         ": the file system cannot rename, so this save was not atomic: it was written in place";
}

Tensor SavePlan::to_bytes() const {
  const auto size = static_cast<int64_t>(header_.bytes.size() + header_.data_size);
  const TensorType type{shared::ScalarType::Byte, {size}, {1}, static_cast<size_t>(size), 1};
  std::byte* out = nullptr;
  Tensor bytes = new_tensor(type, out);
  for (const std::span<const std::byte> piece : pieces()) {
    if (!piece.empty()) {
      std::memcpy(out, piece.data(), piece.size());
      out += piece.size();
    }
  }
  return bytes;
}

}  // namespace torch_safetensors::stable
