#include "stable/load.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <stdexcept>

#include "format/text.h"
#include "stable/open_file.h"

namespace torch_safetensors::stable {
namespace {

using shared::in_brackets;

/// What stands for a path in errors about a buffer.
const std::string kBytes = "bytes";

std::span<const int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.data(), sizes.size()};
}

/// Whether it has a storage with memory.
bool is_strided(const Tensor& tensor) {
  return tensor.layout() == torch::headeronly::Layout::Strided &&
         tensor.device().type() != torch::headeronly::DeviceType::Meta;
}

/// Whether a tensor of `sizes` has a part of `part` that begins at `offsets`.
bool is_part(std::span<const int64_t> sizes, std::span<const int64_t> offsets,
             std::span<const int64_t> part) {
  bool fits = offsets.size() == sizes.size() && part.size() == sizes.size();
  for (size_t dim = 0; fits && dim < sizes.size(); ++dim) {
    fits = offsets[dim] >= 0 && offsets[dim] <= sizes[dim] && part[dim] <= sizes[dim] - offsets[dim];
  }
  return fits;
}

Texts names_of(const format::Header& header) {
  Texts names;
  for (const format::TensorEntry& entry : header.tensors()) {
    names.emplace_back(entry.name);
  }
  return names;
}

void check_signature(const OpenFile& file, const format::TensorEntry& entry, const std::string& expect) {
  if (const std::string found = format::signature(entry.dtype, entry.shape); found != expect) {
    throw_malformed(file.source(), "tensor " + format::in_quotes(entry.name) + ": the file holds " + found +
                                       " but " + format::printable(expect) + " is expected");
  }
}

/// Every name was found, so the file has others where it has more.
void check_exact(const OpenFile& file, Texts names) {
  std::sort(names.begin(), names.end());
  for (const format::TensorEntry& entry : file.header().tensors()) {
    if (!std::binary_search(names.begin(), names.end(), entry.name)) {
      throw_malformed(file.source(), "tensor " + format::in_quotes(entry.name) +
                                         ": not expected: the file holds " +
                                         std::to_string(file.header().tensors().size()) + " tensors but " +
                                         std::to_string(names.size()) + " are expected");
    }
  }
}

}  // namespace

std::pair<Texts, Texts> signatures(const std::string& filename) {
  const OpenFile file(filename, "auto");
  Texts forms;
  for (const format::TensorEntry& entry : file.header().tensors()) {
    forms.push_back(format::signature(entry.dtype, entry.shape));
  }
  return {names_of(file.header()), std::move(forms)};
}

Texts signatures_of(const std::string& filename, const Texts& names) {
  const OpenFile file(filename, "auto");
  Texts forms;
  for (const std::string& name : names) {
    const format::TensorEntry& entry = file.entry(name);
    forms.push_back(format::signature(entry.dtype, entry.shape));
  }
  return forms;
}

Texts keys(const std::string& filename) { return names_of(OpenFile(filename, "auto").header()); }

void prefetch(const std::string& filename, const Texts& names) {
  const OpenFile file(filename, "auto");
  std::vector<const format::TensorEntry*> entries;
  for (const std::string& name : names) {
    entries.push_back(&file.entry(name));
  }
  file.will_need(entries);
}

std::pair<Texts, std::vector<Tensor>> load_all(const std::string& filename, Device device,
                                               std::string_view backend) {
  const OpenFile file(filename, backend);
  std::vector<const format::TensorEntry*> entries;
  for (const format::TensorEntry& entry : file.header().tensors()) {
    entries.push_back(&entry);
  }
  return {names_of(file.header()), file.read(entries, device)};
}

std::vector<Tensor> load_tensors(const std::string& filename, const Texts& names, Device device,
                                 std::string_view backend, const std::optional<Texts>& expect, bool exact) {
  if (expect && expect->size() != names.size()) {
    throw std::invalid_argument("expect has " + std::to_string(expect->size()) + " entries for " +
                                std::to_string(names.size()) + " names");
  }
  const OpenFile file(filename, backend);
  std::vector<const format::TensorEntry*> entries;
  entries.reserve(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    entries.push_back(&file.entry(names[i]));
    if (expect) {
      check_signature(file, *entries.back(), (*expect)[i]);
    }
  }
  if (exact) {
    check_exact(file, names);
  }
  return file.read(entries, device);
}

void load_into(const std::string& filename, const std::string& name, Tensor out,
               const std::optional<std::vector<int64_t>>& offsets) {
  const OpenFile file(filename, "auto");
  const format::TensorEntry* const entries[] = {&file.entry(name)};
  const TensorType type = tensor_type(file.source(), *entries[0]);
  const auto sizes = sizes_of(out);
  const std::string held = file.source() + ": tensor " + format::in_quotes(name) + ": the file holds ";
  if (type.dtype != out.scalar_type() || (!offsets && !std::ranges::equal(type.sizes, sizes))) {
    throw std::invalid_argument(held + toString(type.dtype) + " " + in_brackets(type.sizes) +
                                " but the tensor to load into is " + toString(out.scalar_type()) + " " +
                                in_brackets(sizes));
  }
  if (offsets && !is_part(type.sizes, *offsets, sizes)) {
    throw std::invalid_argument(held + in_brackets(type.sizes) + ", of which no part of " +
                                in_brackets(sizes) + " begins at " + in_brackets(*offsets));
  }
  if (is_strided(out)) {
    check_memory(out, file.source() + ": tensor " + format::in_quotes(name));
  }
  Tensor values = file.read(entries, torch::headeronly::DeviceType::CPU).front();
  for (size_t dim = 0; offsets && dim < sizes.size(); ++dim) {
    values = torch::stable::narrow(values, static_cast<int64_t>(dim), (*offsets)[dim], sizes[dim]);
  }
  // torch's own copy: it checks whether `out` may be written, and counts its version.
  torch::stable::copy_(out, values);
}

std::pair<Texts, std::vector<Tensor>> load_bytes(const Tensor& data, Device device) {
  if (data.scalar_type() != shared::ScalarType::Byte || data.dim() != 1) {
    throw std::invalid_argument("data must be a 1-D uint8 tensor, not " +
                                std::string(toString(data.scalar_type())) + " of shape " +
                                in_brackets(sizes_of(data)));
  }
  if (!is_strided(data)) {
    throw std::invalid_argument("data has no memory of its own (it is sparse or on the meta device)");
  }
  check_memory(data, "data");
  const Tensor buffer = torch::stable::contiguous(
      torch::stable::to(resolved(data), Device(torch::headeronly::DeviceType::CPU)));
  const std::string_view text(static_cast<const char*>(buffer.const_data_ptr()), buffer.numel());
  uint64_t data_begin = 0;
  const format::Header header = parse_header(kBytes, text, text.size(), data_begin);
  std::vector<Tensor> tensors;
  for (const format::TensorEntry& entry : header.tensors()) {
    const TensorType type = tensor_type(kBytes, entry);
    if (type.nbytes == 0 || device.type() == torch::headeronly::DeviceType::Meta) {
      tensors.push_back(empty_tensor(type, device));
      continue;
    }
    std::byte* copy = nullptr;
    tensors.push_back(new_tensor(type, copy));
    std::memcpy(copy, text.data() + data_begin + entry.begin, type.nbytes);
    if (!device.is_cpu()) {
      tensors.back() = torch::stable::to(tensors.back(), device);
    }
  }
  return {names_of(header), std::move(tensors)};
}

}  // namespace torch_safetensors::stable
