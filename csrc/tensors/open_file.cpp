#include "tensors/open_file.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>

#include "format/text.h"
#include "io/parallel_read.h"
#include "io/progress.h"
#include "io/will_need.h"
#include "tensors/checksums.h"
#include "tensors/device_load.h"
#include "tensors/filename.h"
#include "tensors/source.h"
#include "tensors/strided_runs.h"

namespace torch_safetensors::tensors {
namespace {

/// Enough for the header of most files, so that one system call brings it whole.
constexpr uint64_t kFirstRead = 16 * 1024;

/// A part of a tensor up to this size is read sooner than its file is mapped and its pages are found, and no
/// more of the file is.
constexpr size_t kSmallPart = 512 * 1024;

Backend choose_backend(std::string_view backend, const io::File& file) {
  if (backend == "mmap") {
    return Backend::kMmap;
  }
  if (backend == "pread") {
    return Backend::kPread;
  }
  TORCH_CHECK_VALUE(backend == "auto", "backend ", format::in_quotes(backend),
                    " is not one of 'auto', 'mmap', 'pread'");
  // Page faults over a network cost a round trip each: mapped loads took 10 to 50 times as long there
  // (safetensors#562), and a server that goes away kills the process (SIGBUS).
  return file.is_remote() ? Backend::kPread : Backend::kMmap;
}

}  // namespace

OpenFile::OpenFile(const std::string& filename, std::string_view backend)
    : file_(decode_filename(filename)),
      source_(format::printable(file_.path())),
      backend_(choose_backend(backend, file_)),
      header_(read_header()) {}

format::Header OpenFile::read_header() {
  std::vector<char> bytes(std::min(file_.size(), kFirstRead));
  file_.read_at(0, std::as_writable_bytes(std::span(bytes)));
  const uint64_t header_size = parse_header_size_of(source_, {bytes.data(), bytes.size()}, file_.size());
  data_begin_ = format::kPrefixSize + header_size;
  if (const size_t had = bytes.size(); had < data_begin_) {
    bytes.resize(data_begin_);
    file_.read_at(had, std::as_writable_bytes(std::span(bytes).subspan(had)));
  }
  return parse_header_of(source_, {bytes.data() + format::kPrefixSize, header_size},
                         file_.size() - data_begin_);
}

const format::TensorEntry& OpenFile::entry(std::string_view name) const {
  return find_entry(source_, header_, name);
}

c10::intrusive_ptr<SharedMapping> OpenFile::mapping() const {
  const std::lock_guard lock(mapping_mutex_);
  if (!mapping_) {
    mapping_ = c10::make_intrusive<SharedMapping>(file_);
  }
  return mapping_;
}

at::Tensor OpenFile::read(const format::TensorEntry& entry, c10::Device device) const {
  const format::TensorEntry* const entries[] = {&entry};
  return std::move(read(entries, device).front());
}

std::vector<at::Tensor> OpenFile::read(std::span<const format::TensorEntry* const> entries,
                                       c10::Device device, const TransferOptions& options,
                                       bool verify) const {
  uint64_t nbytes = 0;
  for (const format::TensorEntry* entry : entries) {
    nbytes += entry->nbytes();
  }
  io::Progress progress(verify ? 2 * nbytes : nbytes);
  std::vector<at::Tensor> tensors = read_or_map(entries, device, options, verify);
  progress.finish();
  return tensors;
}

std::vector<at::Tensor> OpenFile::read_or_map(std::span<const format::TensorEntry* const> entries,
                                              c10::Device device, const TransferOptions& options,
                                              bool verify) const {
  if (verify && !device.is_cpu()) {
    verify_bytes(source_, header_, entries, bytes(), data_begin_);
  }
  if (device.is_meta()) {
    std::vector<at::Tensor> tensors;
    tensors.reserve(entries.size());
    for (const format::TensorEntry* entry : entries) {
      tensors.push_back(empty_tensor(tensor_type(source_, *entry), device));
    }
    return tensors;
  }
  if (!device.is_cpu()) {
    return read_to(entries, device, options);
  }
  std::vector<at::Tensor> tensors =
      backend_ == Backend::kMmap ? read_mapped(entries) : read_copied(entries, options);
  if (verify) {
    verify_tensors(source_, header_, entries, tensors);
  }
  return tensors;
}

void OpenFile::verify() const { verify_bytes(source_, header_, entries_of(header_), bytes(), data_begin_); }

std::vector<at::Tensor> OpenFile::read_to(std::span<const format::TensorEntry* const> entries,
                                          c10::Device device, const TransferOptions& options) const {
  std::vector<Wanted> wanted;
  wanted.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    wanted.push_back({tensor_type(source_, *entry), position(*entry)});
  }
  if (auto tensors = load_to_device(bytes(), wanted, device, options)) {
    return std::move(*tensors);
  }
  std::vector<at::Tensor> tensors;
  for (const format::TensorEntry* entry : entries) {
    tensors.push_back(read(*entry, c10::kCPU).to(device));
  }
  return tensors;
}

void OpenFile::will_need(std::span<const format::TensorEntry* const> entries) const {
  for (const format::TensorEntry* entry : entries) {
    io::will_need(file_, position(*entry), entry->nbytes());
  }
}

std::vector<at::Tensor> OpenFile::read_mapped(std::span<const format::TensorEntry* const> entries) const {
  const c10::intrusive_ptr<SharedMapping> pages = mapping();
  std::vector<at::Tensor> tensors;
  tensors.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    const TensorType type = tensor_type(source_, *entry);
    tensors.push_back(tensor_over_or_copy(pages->bytes().data() + position(*entry), type, pages));
  }
  return tensors;
}

std::vector<at::Tensor> OpenFile::read_copied(std::span<const format::TensorEntry* const> entries,
                                              const TransferOptions& options) const {
  std::vector<at::Tensor> tensors;
  std::vector<std::span<std::byte>> destinations;
  tensors.reserve(entries.size());
  destinations.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    tensors.push_back(empty_tensor(tensor_type(source_, *entry), c10::kCPU));
    destinations.push_back(writable_bytes(tensors.back()));
  }
  io::HugePages fresh(destinations);
  read_into(entries, destinations, &fresh, options);
  return tensors;
}

void OpenFile::read_into(std::span<const format::TensorEntry* const> entries,
                         std::span<const std::span<std::byte>> destinations, io::HugePages* fresh,
                         const TransferOptions& options) const {
  std::vector<io::ReadRange> ranges;
  ranges.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    ranges.push_back({position(*entries[i]), destinations[i]});
  }
  io::read_ranges(file_, ranges, fresh, asked_threads(options));
}

at::Tensor OpenFile::read_view(const format::TensorEntry& entry, const StridedView& view,
                               c10::Device device) const {
  TensorType type = tensor_type(source_, entry);
  const auto item_size = static_cast<int64_t>(c10::elementSize(type.dtype));
  const StridedRuns runs = strided_runs(view, item_size);
  type.sizes.assign(view.sizes.begin(), view.sizes.end());
  type.nbytes = runs.count * runs.nbytes;
  if (device.is_meta() || type.nbytes == 0) {
    return empty_tensor(type, device);
  }
  const uint64_t begin = position(entry);
  if (!device.is_cpu() && runs.count <= 1) {
    const Wanted wanted[] = {{type, begin + view.offset * item_size}};
    if (auto tensors = load_to_device(bytes(), wanted, device, {})) {
      return std::move(tensors->front());
    }
  }
  at::Tensor result;
  const bool read_it = backend_ == Backend::kPread || (runs.count <= 1 && type.nbytes <= kSmallPart);
  if (!read_it && runs.count <= 1) {
    const c10::intrusive_ptr<SharedMapping> pages = mapping();
    result = tensor_over_or_copy(pages->bytes().data() + begin + view.offset * item_size, type, pages);
  } else {
    result = empty_tensor(type, c10::kCPU);
    if (!read_it) {
      copy_runs(mapping()->bytes().subspan(begin, entry.nbytes()), runs, writable_bytes(result));
    } else {
      read_runs(file_, begin, runs, writable_bytes(result));
    }
  }
  return result.to(device);
}

}  // namespace torch_safetensors::tensors
