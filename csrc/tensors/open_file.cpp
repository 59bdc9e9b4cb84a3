#include "tensors/open_file.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cerrno>
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
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {
namespace {

/// Enough for the header of most files, so that one system call brings it whole.
constexpr uint64_t kFirstRead = 16 * 1024;

/// A part of a tensor up to this size is read sooner than it is mapped and its pages are found.
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

/// Nothing where the process has all the mappings it may have.
c10::intrusive_ptr<SharedMapping> map_part(const io::File& file, uint64_t offset, size_t size) {
  try {
    return c10::make_intrusive<SharedMapping>(file, offset, size);
  } catch (const OsError& error) {
    if (error.error_number() != ENOMEM) {
      throw;
    }
    return {};
  }
}

}  // namespace

OpenFile::OpenFile(const std::string& filename, std::string_view backend)
    : OpenFile(io::File(decode_filename(filename)), backend, nullptr) {}

OpenFile::OpenFile(std::string path, std::string_view backend, std::shared_ptr<const io::File> index)
    : OpenFile(io::File(std::move(path)), backend, std::move(index)) {}

OpenFile::OpenFile(io::File file, std::string_view backend, std::shared_ptr<const io::File> index)
    : source_(format::printable(file.path())),
      backend_(choose_backend(backend, file)),
      header_(read_header(file)) {
  if (index && backend_ == Backend::kMmap) {
    map(file);  // which keeps this version, whether a descriptor is kept or not
  }
  file_ = index ? std::make_shared<io::SteadyFile>(std::move(file), std::move(index))
                : std::make_shared<io::SteadyFile>(std::move(file));
}

format::Header OpenFile::read_header(const io::File& file) {
  std::vector<char> bytes(std::min(file.size(), kFirstRead));
  file.read_at(0, std::as_writable_bytes(std::span(bytes)));
  const uint64_t header_size = parse_header_size_of(source_, {bytes.data(), bytes.size()}, file.size());
  data_begin_ = format::kPrefixSize + header_size;
  if (const size_t had = bytes.size(); had < data_begin_) {
    bytes.resize(data_begin_);
    file.read_at(had, std::as_writable_bytes(std::span(bytes).subspan(had)));
  }
  return parse_header_of(source_, {bytes.data() + format::kPrefixSize, header_size},
                         file.size() - data_begin_);
}

const format::TensorEntry& OpenFile::entry(std::string_view name) const {
  return find_entry(source_, header_, name);
}

void OpenFile::map(const io::File& file) const {
  mapping_ = c10::make_intrusive<SharedMapping>(file);
  is_handed_out_.assign(header_.tensors().size(), false);
}

void OpenFile::keep(std::shared_ptr<io::ReadAhead> ahead) const {
  const std::lock_guard lock(mapping_mutex_);
  if (!mapping_) {
    map(*file_->open());
  }
  mapping_->keep(std::move(ahead));
}

/// Mappings in which nobody has the pages of the entries. One serves all that are asked for once: as many
/// mappings as tensors would exceed what a process may have. None for a small entry that was handed out
/// before, which is sooner copied.
std::vector<c10::intrusive_ptr<SharedMapping>> OpenFile::claim(
    std::span<const format::TensorEntry* const> entries) const {
  std::vector<c10::intrusive_ptr<SharedMapping>> mappings;
  mappings.reserve(entries.size());
  const std::lock_guard lock(mapping_mutex_);
  for (const format::TensorEntry* entry : entries) {
    const size_t index = entry - header_.tensors().data();
    const bool is_taken = mapping_ && is_handed_out_[index];
    if (is_taken && entry->nbytes() <= kSmallPart) {
      mappings.emplace_back();
      continue;
    }
    if (!mapping_ || is_taken) {
      map(*file_->open());
    }
    is_handed_out_[index] = true;
    mappings.push_back(mapping_);
  }
  return mappings;
}

std::shared_ptr<const io::Mapping> OpenFile::pages_to_read() const {
  const std::lock_guard lock(mapping_mutex_);
  if (!pages_to_read_) {
    pages_to_read_ = std::make_shared<const io::Mapping>(*file_->open());
  }
  return pages_to_read_;
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
  const std::shared_ptr<const io::File> file = file_->open();
  for (const format::TensorEntry* entry : entries) {
    io::will_need(*file, position(*entry), entry->nbytes());
  }
}

std::vector<at::Tensor> OpenFile::read_mapped(std::span<const format::TensorEntry* const> entries) const {
  std::vector<TensorType> types;
  types.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    types.push_back(tensor_type(source_, *entry));
  }
  std::vector<c10::intrusive_ptr<SharedMapping>> mappings = claim(entries);
  std::vector<at::Tensor> tensors;
  tensors.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!mappings[i]) {
      tensors.push_back(read_part(types[i], position(*entries[i])));
      continue;
    }
    std::byte* const data = mappings[i]->bytes().data() + position(*entries[i]);
    tensors.push_back(tensor_over_or_copy(data, types[i], std::move(mappings[i])));
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
  io::read_ranges(*file_->open(), ranges, fresh, asked_threads(options));
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
  if (runs.count <= 1) {
    return read_part(type, begin + view.offset * item_size).to(device);
  }
  at::Tensor result = empty_tensor(type, c10::kCPU);
  if (backend_ == Backend::kMmap) {
    copy_runs(pages_to_read()->bytes().subspan(begin, entry.nbytes()), runs, writable_bytes(result));
  } else {
    read_runs(*file_->open(), begin, runs, writable_bytes(result));
  }
  return result.to(device);
}

/// Contiguous bytes, as pages of their own where they are many and the file is mapped.
at::Tensor OpenFile::read_part(const TensorType& type, uint64_t begin) const {
  const std::shared_ptr<const io::File> file = file_->open();
  if (backend_ == Backend::kMmap && type.nbytes > kSmallPart) {
    if (auto pages = map_part(*file, begin, type.nbytes)) {
      std::byte* const data = pages->bytes().data();
      return tensor_over_or_copy(data, type, std::move(pages));
    }
  }
  at::Tensor result = empty_tensor(type, c10::kCPU);
  const io::ReadRange range{begin, writable_bytes(result)};
  io::read_ranges(*file, {&range, 1});
  return result;
}

}  // namespace torch_safetensors::tensors
