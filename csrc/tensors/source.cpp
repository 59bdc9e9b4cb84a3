#include "tensors/source.h"

#include <algorithm>
#include <span>

#include "format/no_holes.h"
#include "format/text.h"
#include "tensors/scalar_type.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {
namespace {

/// torch computes strides of tensors without elements, too. Those of others fit because their bytes do.
bool strides_fit(std::span<const int64_t> sizes) {
  int64_t stride = 1;
  for (size_t dim = sizes.size(); dim > 1; --dim) {
    if (__builtin_mul_overflow(stride, std::max<int64_t>(sizes[dim - 1], 1), &stride)) {
      return false;
    }
  }
  return true;
}

template <typename Parse>
auto with_source(const std::string& source, Parse parse) {
  try {
    return parse();
  } catch (const SafetensorError& error) {
    throw_malformed(source, error.what());
  }
}

[[noreturn]] void throw_not_held(const std::string& source, const format::TensorEntry& entry,
                                 const std::string& reason) {
  throw_malformed(source, "tensor " + format::in_quotes(entry.name) + ": torch cannot hold " +
                              format::describe(entry.dtype, entry.shape) + ": " + reason);
}

}  // namespace

void throw_malformed(const std::string& source, const std::string& message) {
  throw SafetensorError(source + ": " + message);
}

format::Header parse_header_of(const std::string& source, std::string_view json,
                               std::optional<uint64_t> data_size) {
  return with_source(source, [&] { return format::parse_header(json, data_size); });
}

void check_data_size_of(const std::string& source, const format::Header& header, uint64_t data_size) {
  with_source(source, [&] { format::check_data_size(header.tensors(), data_size); });
}

uint64_t parse_header_size_of(const std::string& source, std::string_view prefix, uint64_t file_size) {
  return with_source(source, [&] { return format::parse_header_size(prefix, file_size); });
}

const format::TensorEntry& find_entry(const std::string& source, const format::Header& header,
                                      std::string_view name) {
  const format::TensorEntry* entry = header.find(name);
  if (entry == nullptr) {
    throw_malformed(source, "tensor " + format::in_quotes(name) + ": not in this file, which holds " +
                                std::to_string(header.tensors().size()) + " tensors");
  }
  return *entry;
}

std::vector<const format::TensorEntry*> entries_of(const format::Header& header) {
  std::vector<const format::TensorEntry*> entries;
  entries.reserve(header.tensors().size());
  for (const format::TensorEntry& entry : header.tensors()) {
    entries.push_back(&entry);
  }
  return entries;
}

TensorType tensor_type(const std::string& source, const format::TensorEntry& entry) {
  const auto scalar_type = to_scalar_type(entry.dtype);
  if (!scalar_type) {
    throw_not_held(source, entry, "it has no such dtype; load the other tensors by name");
  }
  TensorType type{*scalar_type, {entry.shape.begin(), entry.shape.end()}, entry.nbytes()};
  if (const int64_t packed = packing(entry.dtype); packed > 1) {
    // A packed tensor has at least one dimension: a single F4 does not end at a byte boundary.
    if (type.sizes.back() % packed != 0) {
      throw_not_held(
          source, entry,
          "the last dimension must be a multiple of " + std::to_string(packed) + ", which share a byte");
    }
    type.sizes.back() /= packed;
  }
  if (type.nbytes == 0 && !strides_fit(type.sizes)) {
    throw_not_held(source, entry, "its strides do not fit in 64 bits");
  }
  return type;
}

}  // namespace torch_safetensors::tensors
