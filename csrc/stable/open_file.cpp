#include "stable/open_file.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "format/text.h"
#include "io/huge_pages.h"
#include "io/mapping.h"
#include "io/parallel_read.h"
#include "io/will_need.h"
#include "shared/filename.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::stable {
namespace {

/// Enough for the header of most files, so that one system call brings it whole.
constexpr uint64_t kFirstRead = 16 * 1024;

/// Sooner copied than mapped once more.
constexpr size_t kSmallPart = 512 * 1024;

std::string decode(const std::string& filename) {
  std::optional<std::string> path = shared::decode_filename(filename);
  if (!path) {
    throw std::invalid_argument("embedded null character in path");
  }
  return *std::move(path);
}

bool choose_mapped(std::string_view backend, const io::File& file) {
  if (backend != "auto" && backend != "mmap" && backend != "pread") {
    throw std::invalid_argument("backend " + format::in_quotes(backend) +
                                " is not one of 'auto', 'mmap', 'pread'");
  }
  return backend == "mmap" || (backend == "auto" && !file.is_remote());
}

std::span<std::byte> bytes_of(std::vector<char>& text) { return std::as_writable_bytes(std::span(text)); }

}  // namespace

format::Header parse_header(const std::string& source, std::string_view bytes, uint64_t size,
                            uint64_t& data_begin) {
  try {
    data_begin = format::kPrefixSize + format::parse_header_size(bytes, size);
    return format::parse_header(bytes.substr(0, data_begin).substr(format::kPrefixSize), size - data_begin);
  } catch (const SafetensorError& error) {
    throw_malformed(source, error.what());
  }
}

OpenFile::OpenFile(const std::string& filename, std::string_view backend)
    : file_(decode(filename)),
      source_(format::printable(file_.path())),
      is_mapped_(choose_mapped(backend, file_)),
      header_(read_header()) {}

format::Header OpenFile::read_header() {
  std::vector<char> bytes(std::min(file_.size(), kFirstRead));
  file_.read_at(0, bytes_of(bytes));
  uint64_t header_size = 0;
  try {
    header_size = format::parse_header_size({bytes.data(), bytes.size()}, file_.size());
  } catch (const SafetensorError& error) {
    throw_malformed(source_, error.what());
  }
  if (const size_t had = bytes.size(); had < format::kPrefixSize + header_size) {
    bytes.resize(format::kPrefixSize + header_size);
    file_.read_at(had, bytes_of(bytes).subspan(had));
  }
  return parse_header(source_, {bytes.data(), bytes.size()}, file_.size(), data_begin_);
}

const format::TensorEntry& OpenFile::entry(std::string_view name) const {
  const format::TensorEntry* const entry = header_.find(name);
  if (entry == nullptr) {
    throw_malformed(source_, "tensor " + format::in_quotes(name) + ": not in this file, which holds " +
                                 std::to_string(header_.tensors().size()) + " tensors");
  }
  return *entry;
}

std::vector<Tensor> OpenFile::read(std::span<const format::TensorEntry* const> entries, Device device) const {
  if (device.type() == torch::headeronly::DeviceType::Meta) {
    std::vector<Tensor> tensors;
    for (const format::TensorEntry* entry : entries) {
      tensors.push_back(empty_tensor(tensor_type(source_, *entry), device));
    }
    return tensors;
  }
  std::vector<Tensor> tensors = is_mapped_ ? read_mapped(entries) : read_copied(entries);
  if (!device.is_cpu()) {
    for (Tensor& tensor : tensors) {
      tensor = torch::stable::to(tensor, device);
    }
  }
  return tensors;
}

void OpenFile::will_need(std::span<const format::TensorEntry* const> entries) const {
  for (const format::TensorEntry* entry : entries) {
    io::will_need(file_, data_begin_ + entry->begin, entry->nbytes());
  }
}

std::vector<Tensor> OpenFile::read_mapped(std::span<const format::TensorEntry* const> entries) const {
  auto mapping = std::make_shared<io::Mapping>(file_);
  std::vector<bool> is_handed_out(header_.tensors().size(), false);
  std::vector<Tensor> tensors;
  tensors.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    const TensorType type = tensor_type(source_, *entry);
    const size_t index = entry - header_.tensors().data();
    // Asked for twice: tensors do not share pages, which graphs take for granted.
    const bool is_copied = is_handed_out[index] && type.nbytes <= kSmallPart;
    if (is_handed_out[index] && !is_copied) {
      mapping = std::make_shared<io::Mapping>(file_);
      is_handed_out.assign(is_handed_out.size(), false);
    }
    is_handed_out[index] = true;
    std::byte* data = mapping->bytes().data() + data_begin_ + entry->begin;
    if (type.nbytes == 0) {
      tensors.push_back(empty_tensor(type, torch::headeronly::DeviceType::CPU));
    } else if (is_aligned(data, type) && !is_copied) {
      tensors.push_back(tensor_over(data, type, mapping));
    } else {
      std::byte* copy = nullptr;
      tensors.push_back(new_tensor(type, copy));
      std::memcpy(copy, data, type.nbytes);
    }
  }
  return tensors;
}

std::vector<Tensor> OpenFile::read_copied(std::span<const format::TensorEntry* const> entries) const {
  std::vector<Tensor> tensors;
  std::vector<std::span<std::byte>> destinations;
  std::vector<io::ReadRange> ranges;
  tensors.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    const TensorType type = tensor_type(source_, *entry);
    if (type.nbytes == 0) {
      tensors.push_back(empty_tensor(type, torch::headeronly::DeviceType::CPU));
      continue;
    }
    std::byte* data = nullptr;
    tensors.push_back(new_tensor(type, data));
    destinations.emplace_back(data, type.nbytes);
    ranges.push_back({data_begin_ + entry->begin, destinations.back()});
  }
  io::HugePages fresh(destinations);
  io::read_ranges(file_, ranges, &fresh);
  return tensors;
}

}  // namespace torch_safetensors::stable
