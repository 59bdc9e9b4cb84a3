#include "tensors/load.h"

#include <ATen/Functions.h>

#include "format/text.h"
#include "io/parallel_copy.h"
#include "tensors/byte_range.h"
#include "tensors/checkpoint.h"
#include "tensors/checksums.h"
#include "tensors/device_load.h"
#include "tensors/device_save.h"
#include "tensors/source.h"
#include "tensors/with_checkpoint.h"

namespace torch_safetensors {
namespace tensors {
namespace {

/// What stands for a path in errors about a buffer.
const std::string kBytes = "bytes";

TensorDict to_dict(Loaded loaded) {
  TensorDict dict;
  dict.reserve(loaded.tensors.size());
  for (size_t i = 0; i < loaded.tensors.size(); ++i) {
    dict.insert(std::string(loaded.names[i]), std::move(loaded.tensors[i]));
  }
  return dict;
}

/// A tensor whose bytes lie in `owner`'s memory at `data`.
at::Tensor alias(std::byte* data, const format::TensorEntry& entry, const TensorType& type,
                 const at::Tensor& owner) {
  TORCH_CHECK_VALUE(type.nbytes == 0 || is_aligned(data, type.dtype), kBytes, ": tensor ",
                    format::in_quotes(entry.name),
                    ": its data begins at an address that is not a multiple of ",
                    c10::elementSize(type.dtype), " bytes, so it cannot be aliased; pass copy=True");
  return tensor_over(data, type, owner.getIntrusivePtr());
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

Loaded loaded(format::Header header, std::vector<at::Tensor> tensors) {
  std::vector<std::string_view> names = names_of(entries_of(header));
  return {std::move(header), std::move(names), std::move(tensors)};
}

void check_buffer(const at::Tensor& data, at::Device device, bool copy) {
  TORCH_CHECK_VALUE(data.scalar_type() == at::kByte && data.dim() == 1,
                    "data must be a 1-D uint8 tensor, not ", data.scalar_type(), " of shape ", data.sizes());
  TORCH_CHECK_VALUE(!data.is_meta(), "data is on the meta device: it has no bytes to load from");
  TORCH_CHECK_VALUE(
      has_memory(data),
      "data has no memory of its own (it is sparse, a FakeTensor, or a subclass that wraps others)");
  check_memory(data, "data");
  TORCH_CHECK_VALUE(
      copy || (data.is_contiguous() && lies_here(data) && (device.is_cpu() || device.is_meta())),
      "copy=False needs contiguous data and tensors on the CPU, not data on ", data.device(),
      " and tensors on ", device);
}

}  // namespace

std::vector<std::string_view> names_of(std::span<const format::TensorEntry* const> entries) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    names.push_back(entry->name);
  }
  return names;
}

Loaded load_all(const std::string& filename, at::Device device, std::string_view backend,
                const TransferOptions& options, bool verify, bool strict_index) {
  const auto load = [&](std::unique_ptr<Checkpoint> file) -> Loaded {
    std::vector<at::Tensor> tensors = file->read_all(device, options, verify);
    std::vector<std::string_view> names = names_of(file->entries());
    return {std::move(file), std::move(names), std::move(tensors)};
  };
  return with_checkpoint(filename, backend, Checkpoint::Opening::all(strict_index), load);
}

Loaded load_all(const at::Tensor& data, at::Device device, bool copy, bool verify) {
  check_buffer(data, device, copy);
  const at::Tensor buffer = data.resolve_neg().cpu().contiguous();
  const std::span<const std::byte> bytes = readable_bytes(buffer);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const uint64_t header_size = parse_header_size_of(kBytes, text, text.size());
  const uint64_t data_begin = format::kPrefixSize + header_size;
  format::Header header =
      parse_header_of(kBytes, text.substr(format::kPrefixSize, header_size), text.size() - data_begin);
  if (verify) {
    verify_bytes(kBytes, header, entries_of(header), MemoryBytes(bytes), data_begin);
  }
  if (!device.is_cpu() && !device.is_meta()) {
    if (auto tensors = load_bytes_to(header, bytes.subspan(data_begin), device)) {
      return loaded(std::move(header), *std::move(tensors));
    }
  }
  const bool on_meta = device.is_meta();
  std::byte* writable = nullptr;
  if (!copy && !bytes.empty()) {
    writable = writable_bytes(buffer).data();  // not before: it would materialise a copy-on-write tensor
    // The aliases would not notice that the memory is gone; Python does not resize a bytearray then, either.
    buffer.storage().unsafeGetStorageImpl()->set_resizable(false);
  }
  // All of them first: what torch cannot hold is an error whether a tensor before it can be aliased or not.
  std::vector<TensorType> types;
  types.reserve(header.tensors().size());
  for (const format::TensorEntry& entry : header.tensors()) {
    types.push_back(tensor_type(kBytes, entry));
  }
  std::vector<at::Tensor> tensors;
  std::vector<io::CopyRange> copies;
  std::vector<std::span<std::byte>> copied;
  tensors.reserve(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    const format::TensorEntry& entry = header.tensors()[i];
    const TensorType& type = types[i];
    const uint64_t begin = data_begin + entry.begin;
    if (copy || on_meta) {
      tensors.push_back(empty_tensor(type, on_meta ? device : at::kCPU));
    } else {
      tensors.push_back(alias(writable + begin, entry, type, buffer));
    }
    if (copy && !on_meta) {
      copied.push_back(writable_bytes(tensors.back()));
      copies.push_back({bytes.subspan(begin, type.nbytes), copied.back().data()});
    }
  }
  io::HugePages fresh(copied);
  io::copy_ranges(copies, &fresh);
  return loaded(std::move(header), to_device(std::move(tensors), device));
}

void verify_file(const std::string& filename) {
  with_checkpoint(filename, "auto", Checkpoint::Opening::all(), [](auto file) { file->verify(); });
}

void prefetch(const Checkpoint& file, const std::vector<std::string>& names) {
  std::vector<const format::TensorEntry*> entries;
  for (const std::string& name : names) {
    entries.push_back(&file.entry(name));
  }
  file.will_need(entries);
}

}  // namespace tensors

TensorDict load_file(const std::string& filename, at::Device device, std::string_view backend, bool verify,
                     bool strict_index) {
  return tensors::to_dict(tensors::load_all(filename, device, backend, {}, verify, strict_index));
}

TensorDict load(const at::Tensor& data, at::Device device, bool copy, bool verify) {
  return tensors::to_dict(tensors::load_all(data, device, copy, verify));
}

at::Tensor load_tensor(const std::string& filename, std::string_view name, at::Device device,
                       std::string_view backend, bool verify) {
  return std::move(load_tensors(filename, {std::string(name)}, device, backend, verify).front());
}

void prefetch(const std::string& filename, const std::vector<std::string>& names) {
  tensors::with_checkpoint(filename, "auto", tensors::Checkpoint::Opening::of(names),
                           [&](auto file) { tensors::prefetch(*file, names); });
}

std::vector<std::string> keys(const std::string& filename, bool strict_index) {
  const tensors::Checkpoint file(filename, "auto", tensors::Checkpoint::Opening::all(strict_index));
  const std::vector<std::string_view> names = file.names();
  return {names.begin(), names.end()};
}

Metadata metadata(const std::string& filename) {
  return tensors::Checkpoint(filename, "auto", tensors::Checkpoint::Opening::present()).metadata();
}

}  // namespace torch_safetensors
