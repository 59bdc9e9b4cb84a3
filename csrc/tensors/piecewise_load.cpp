#include "tensors/piecewise_load.h"

#include <ATen/Functions.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tensors/checksums.h"
#include "tensors/load.h"
#include "tensors/source.h"
#include "tensors/transfer_options.h"

namespace torch_safetensors::tensors {
namespace {

/// In the order of their data, each once.
std::vector<const format::TensorEntry*> find_entries(const SourceHeader& header,
                                                     const std::optional<std::vector<std::string>>& names) {
  if (!names) {
    return entries_of(header.header());
  }
  std::vector<const format::TensorEntry*> entries;
  entries.reserve(names->size());
  for (const std::string& name : *names) {
    entries.push_back(&find_entry(header.source(), header.header(), name));
  }
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  return entries;
}

/// Which device is the current one is known to the calling thread alone, and others do the work.
c10::Device with_index(c10::Device device) {
  if (device.is_cpu() || device.is_meta() || device.has_index()) {
    return device;
  }
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

}  // namespace

PiecewiseLoad::PiecewiseLoad(c10::intrusive_ptr<SourceHeader> header,
                             const std::optional<std::vector<std::string>>& names, c10::Device device,
                             bool verify, int64_t piece_size, int64_t max_gap)
    : header_(std::move(header)),
      device_(with_index(device)),
      piece_size_(static_cast<uint64_t>(piece_size)),
      max_gap_(static_cast<uint64_t>(max_gap)),
      entries_(find_entries(*header_, names)),
      tensors_(entries_.size()),
      missing_(entries_.size()) {
  TORCH_CHECK_VALUE(piece_size > 0 && max_gap >= 0, "pieces of ", piece_size, " bytes with gaps of ",
                    max_gap);
  for (const format::TensorEntry* entry : entries_) {
    types_.push_back(tensor_type(header_->source(), *entry));
  }
  if (verify) {
    recorded_ = recorded_of(header_->source(), header_->header(), entries_);
    found_.resize(entries_.size());
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    // The meta device needs no bytes, but to verify them.
    missing_[i] = device_.is_meta() && !verify ? 0 : types_[i].nbytes;
    total_ += missing_[i];
    if (missing_[i] == 0) {
      tensors_[i] = empty_tensor(types_[i], device_.is_meta() ? device_ : c10::kCPU);
      complete(i);
    }
  }
  if (device_.is_cpu() && header_->is_held_to_size()) {
    allocate_all();
  }
}

/// By the caller, whose heap has what earlier loads gave back; that of the threads that fill it is fresh.
void PiecewiseLoad::allocate_all() {
  std::vector<std::span<std::byte>> memories;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (missing_[i] > 0) {
      tensors_[i] = empty_tensor(types_[i], c10::kCPU);
      memories.push_back(writable_bytes(tensors_[i]));
    }
  }
  fresh_.emplace(memories);
}

int64_t PiecewiseLoad::threads(std::optional<int64_t> threads, int64_t otherwise) const {
  const size_t wanted = reader_threads(threads, static_cast<size_t>(otherwise));
  return static_cast<int64_t>(std::min<uint64_t>(wanted, (total_ + piece_size_ - 1) / piece_size_));
}

uint64_t PiecewiseLoad::position(const Part& part) const {
  return static_cast<uint64_t>(header_->data_begin()) + entries_[part.index]->begin + part.begin;
}

/// What the next piece consists of; moves on behind it.
std::vector<PiecewiseLoad::Part> PiecewiseLoad::next_parts() {
  std::vector<Part> parts;
  uint64_t size = 0;
  for (; next_ < entries_.size(); ++next_, next_begin_ = 0) {
    if (missing_[next_] == 0) {
      continue;  // it needs none
    }
    Part part{next_, next_begin_, 0, 0};
    if (!parts.empty()) {
      const uint64_t gap = position(part) - (position(parts.front()) + size);
      if (gap > max_gap_ || gap >= piece_size_ - size) {
        break;
      }
      part.in_piece = size + gap;
    }
    part.nbytes = std::min(types_[next_].nbytes - next_begin_, piece_size_ - part.in_piece);
    size = part.in_piece + part.nbytes;
    parts.push_back(part);
    next_begin_ += part.nbytes;
    if (next_begin_ < types_[next_].nbytes) {
      break;
    }
  }
  return parts;
}

at::Tensor PiecewiseLoad::memory_of(const std::vector<Part>& parts) {
  for (const Part& part : parts) {
    if (!tensors_[part.index].defined()) {
      tensors_[part.index] = empty_tensor(types_[part.index], c10::kCPU);
    }
  }
  const Part& last = parts.back();
  const auto size = static_cast<int64_t>(last.in_piece + last.nbytes);
  const TensorType type{c10::kByte, {size}, static_cast<size_t>(size)};
  if (parts.size() > 1) {
    return empty_tensor(type, c10::kCPU);
  }
  const at::Tensor& tensor = tensors_[last.index];
  if (fresh_) {
    fresh_->prepare(writable_bytes(tensor).subspan(last.begin, last.nbytes));
  }
  return tensor_over(writable_bytes(tensor).data() + last.begin, type, tensor.getIntrusivePtr());
}

std::optional<std::tuple<int64_t, at::Tensor>> PiecewiseLoad::next() {
  const std::lock_guard lock(mutex_);
  Piece piece{next_parts(), {}};
  if (piece.parts.empty()) {
    return std::nullopt;
  }
  piece.memory = memory_of(piece.parts);
  const auto begin = static_cast<int64_t>(position(piece.parts.front()));
  at::Tensor memory = piece.memory;
  in_flight_.emplace(begin, std::move(piece));
  return std::tuple(begin, std::move(memory));
}

void PiecewiseLoad::scatter(const Piece& piece) const {
  if (piece.parts.size() == 1) {
    return;  // the memory is the tensor's own
  }
  const std::span<const std::byte> bytes = readable_bytes(piece.memory);
  for (const Part& part : piece.parts) {
    std::memcpy(writable_bytes(tensors_[part.index]).data() + part.begin, bytes.data() + part.in_piece,
                part.nbytes);
  }
}

void PiecewiseLoad::finish(int64_t begin) {
  Piece piece;
  {
    const std::lock_guard lock(mutex_);
    const auto found = in_flight_.find(begin);
    TORCH_CHECK(found != in_flight_.end(), "no piece that begins at byte ", begin, " is being filled");
    piece = std::move(found->second);
    in_flight_.erase(found);
  }
  scatter(piece);
  std::vector<size_t> complete_now;
  {
    const std::lock_guard lock(mutex_);
    for (const Part& part : piece.parts) {
      missing_[part.index] -= part.nbytes;
      if (missing_[part.index] == 0) {
        complete_now.push_back(part.index);
      }
    }
  }
  piece.memory.reset();
  for (const size_t index : complete_now) {
    complete(index);
  }
}

/// By whoever filled the last of its bytes, so that what goes elsewhere is not kept here until all are there.
void PiecewiseLoad::complete(size_t index) {
  at::Tensor& tensor = tensors_[index];
  if (!recorded_.empty()) {
    found_[index] = checksum_of(*entries_[index], readable_bytes(tensor));
  }
  if (device_.is_meta()) {
    tensor = empty_tensor(types_[index], device_);
  } else if (!device_.is_cpu()) {
    tensor = tensor.to(device_);
  }
}

PythonLoad::Parts PiecewiseLoad::take() {
  const std::lock_guard lock(mutex_);
  const bool is_whole =
      std::all_of(missing_.begin(), missing_.end(), [](uint64_t bytes) { return bytes == 0; });
  TORCH_CHECK(is_whole && tensors_.size() == entries_.size(), "not filled yet, or taken before");
  if (!recorded_.empty()) {
    compare_checksums(header_->source(), entries_, recorded_, found_);
  }
  std::vector<std::string_view> names;
  names.reserve(entries_.size());
  for (const format::TensorEntry* entry : entries_) {
    names.push_back(entry->name);
  }
  auto [joined, separator] = join_names(names);
  return {std::move(joined), std::move(separator), std::exchange(tensors_, {})};
}

}  // namespace torch_safetensors::tensors
