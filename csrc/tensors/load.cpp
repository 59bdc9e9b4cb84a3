#include "tensors/load.h"

#include <ATen/Functions.h>

#include <cstring>

#include "format/text.h"
#include "tensors/device_load.h"
#include "tensors/open_file.h"
#include "tensors/source.h"

namespace torch_safetensors {
namespace tensors {
namespace {

using NamesAndTensors = std::tuple<std::vector<std::string>, std::vector<at::Tensor>>;

/// What stands for a path in errors about a buffer.
const std::string kBytes = "bytes";

TensorDict to_dict(NamesAndTensors lists) {
  auto& [names, tensors] = lists;
  TensorDict dict;
  dict.reserve(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    dict.insert(std::move(names[i]), std::move(tensors[i]));
  }
  return dict;
}

std::vector<const format::TensorEntry*> all_entries(const format::Header& header) {
  std::vector<const format::TensorEntry*> entries;
  entries.reserve(header.tensors().size());
  for (const format::TensorEntry& entry : header.tensors()) {
    entries.push_back(&entry);
  }
  return entries;
}

/// A tensor whose bytes lie in `owner`'s memory at `data`.
at::Tensor alias(std::byte* data, const format::TensorEntry& entry, const TensorType& type,
                 const std::shared_ptr<at::Tensor>& owner) {
  TORCH_CHECK_VALUE(type.nbytes == 0 || is_aligned(data, type.dtype), kBytes, ": tensor ",
                    format::in_quotes(entry.name),
                    ": its data begins at an address that is not a multiple of ",
                    c10::elementSize(type.dtype), " bytes, so it cannot be aliased; pass copy=True");
  return tensor_over(data, type, owner);
}

at::Tensor copy_of(const std::byte* data, const TensorType& type, at::Device device) {
  at::Tensor copy = empty_tensor(type, at::kCPU);
  if (type.nbytes > 0) {
    std::memcpy(copy.mutable_data_ptr(), data, type.nbytes);
  }
  return copy.to(device);
}

/// All tensors of a header that stands in front of `bytes`; nothing where the device's backend has no lanes.
std::optional<std::vector<at::Tensor>> load_bytes_to(const format::Header& header,
                                                     std::span<const std::byte> bytes, at::Device device) {
  std::vector<Wanted> wanted;
  for (const format::TensorEntry& entry : header.tensors()) {
    wanted.push_back({tensor_type(kBytes, entry), entry.begin});
  }
  return load_to_device(MemoryBytes(bytes), wanted, device, {});
}

void check_buffer(const at::Tensor& data, at::Device device, bool copy) {
  TORCH_CHECK_VALUE(data.scalar_type() == at::kByte && data.dim() == 1,
                    "data must be a 1-D uint8 tensor, not ", data.scalar_type(), " of shape ", data.sizes());
  TORCH_CHECK_VALUE(!data.is_meta(), "data is on the meta device: it has no bytes to load from");
  TORCH_CHECK_VALUE(copy || (data.is_contiguous() && data.is_cpu() && (device.is_cpu() || device.is_meta())),
                    "copy=False needs contiguous data and tensors on the CPU, not data on ", data.device(),
                    " and tensors on ", device);
}

}  // namespace

std::vector<std::string> names_of(const format::Header& header) {
  std::vector<std::string> names;
  names.reserve(header.tensors().size());
  for (const format::TensorEntry& entry : header.tensors()) {
    names.emplace_back(entry.name);
  }
  return names;
}

Metadata metadata_of(const format::Header& header) {
  Metadata result;
  if (header.metadata()) {
    for (const auto& [key, value] : *header.metadata()) {
      result.insert(key, value);
    }
  }
  return result;
}

NamesAndTensors load_file_lists(const std::string& filename, at::Device device, std::string_view backend,
                                std::optional<int64_t> threads, std::optional<int64_t> ring_size) {
  const OpenFile file(filename, backend);
  return {names_of(file.header()), file.read(all_entries(file.header()), device, {threads, ring_size})};
}

NamesAndTensors load_lists(const at::Tensor& data, at::Device device, bool copy) {
  check_buffer(data, device, copy);
  const auto buffer = std::make_shared<at::Tensor>(data.cpu().contiguous());
  const std::span<const std::byte> bytes = readable_bytes(*buffer);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const uint64_t header_size = parse_header_size_of(kBytes, text, text.size());
  const uint64_t data_begin = format::kPrefixSize + header_size;
  const format::Header header =
      parse_header_of(kBytes, text.substr(format::kPrefixSize, header_size), text.size() - data_begin);
  if (!device.is_cpu() && !device.is_meta()) {
    if (auto tensors = load_bytes_to(header, bytes.subspan(data_begin), device)) {
      return {names_of(header), std::move(*tensors)};
    }
  }
  // Only to alias: a copy-on-write tensor need not be materialised to be read.
  std::byte* const writable = copy || bytes.empty() ? nullptr : writable_bytes(*buffer).data();
  std::vector<at::Tensor> tensors;
  tensors.reserve(header.tensors().size());
  for (const format::TensorEntry& entry : header.tensors()) {
    const TensorType type = tensor_type(kBytes, entry);
    const uint64_t begin = data_begin + entry.begin;
    tensors.push_back(device.is_meta() ? empty_tensor(type, device)
                      : copy           ? copy_of(bytes.data() + begin, type, device)
                                       : alias(writable + begin, entry, type, buffer));
  }
  return {names_of(header), std::move(tensors)};
}

}  // namespace tensors

TensorDict load_file(const std::string& filename, at::Device device, std::string_view backend) {
  return tensors::to_dict(tensors::load_file_lists(filename, device, backend));
}

TensorDict load(const at::Tensor& data, at::Device device, bool copy) {
  return tensors::to_dict(tensors::load_lists(data, device, copy));
}

at::Tensor load_tensor(const std::string& filename, std::string_view name, at::Device device,
                       std::string_view backend) {
  const tensors::OpenFile file(filename, backend);
  return file.read(file.entry(name), device);
}

std::vector<std::string> keys(const std::string& filename) {
  return tensors::names_of(tensors::OpenFile(filename, "auto").header());
}

Metadata metadata(const std::string& filename) {
  return tensors::metadata_of(tensors::OpenFile(filename, "auto").header());
}

}  // namespace torch_safetensors
