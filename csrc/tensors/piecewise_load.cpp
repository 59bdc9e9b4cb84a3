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

struct Chosen {
  const format::TensorEntry* entry;
  c10::Device device;
};

/// Which device is the current one is known to the calling thread alone, and others do the work.
c10::Device with_index(c10::Device device) {
  if (device.is_cpu() || device.is_meta() || device.has_index()) {
    return device;
  }
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

/// In the order of their data, each once.
std::vector<Chosen> choose(const SourceHeader& header, const std::optional<std::vector<std::string>>& names,
                           const std::vector<c10::Device>& devices) {
  TORCH_CHECK_VALUE(devices.size() == 1 || (names && devices.size() == names->size()),
                    "expected one device, or one for each name, not ", devices.size());
  std::vector<Chosen> chosen;
  for (size_t i = 0; i < (names ? names->size() : header.header().tensors().size()); ++i) {
    const format::TensorEntry& entry =
        names ? find_entry(header.source(), header.header(), (*names)[i]) : header.header().tensors()[i];
    chosen.push_back({&entry, with_index(devices.size() == 1 ? devices.front() : devices[i])});
  }
  std::ranges::stable_sort(chosen, {}, &Chosen::entry);
  const auto twins = std::ranges::unique(chosen, {}, &Chosen::entry);
  chosen.erase(twins.begin(), twins.end());
  return chosen;
}

}  // namespace

PiecewiseLoad::PiecewiseLoad(c10::intrusive_ptr<SourceHeader> header,
                             const std::optional<std::vector<std::string>>& names,
                             const std::vector<c10::Device>& devices, bool verify, int64_t piece_size,
                             int64_t max_gap)
    : header_(std::move(header)),
      piece_size_(static_cast<uint64_t>(piece_size)),
      max_gap_(static_cast<uint64_t>(max_gap)) {
  TORCH_CHECK_VALUE(piece_size > 0 && max_gap >= 0, "pieces of ", piece_size, " bytes with gaps of ",
                    max_gap);
  for (const Chosen& chosen : choose(*header_, names, devices)) {
    entries_.push_back(chosen.entry);
    devices_.push_back(chosen.device);
    types_.push_back(tensor_type(header_->source(), *chosen.entry));
  }
  tensors_.resize(entries_.size());
  missing_.resize(entries_.size());
  if (verify) {
    recorded_ = recorded_of(header_->source(), header_->header(), entries_);
    found_.resize(entries_.size());
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    // The meta device needs no bytes, but to verify them.
    missing_[i] = devices_[i].is_meta() && !verify ? 0 : types_[i].nbytes;
    total_ += missing_[i];
    if (missing_[i] > 0) {
      ++incomplete_;
    } else {
      tensors_[i] = empty_tensor(types_[i], devices_[i].is_meta() ? devices_[i] : c10::kCPU);
      complete(i);
    }
  }
  if (header_->is_held_to_size()) {
    allocate_for_cpu();
  }
}

/// By the caller, whose heap has what earlier loads gave back; that of the threads that fill it is fresh.
void PiecewiseLoad::allocate_for_cpu() {
  std::vector<std::span<std::byte>> memories;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (missing_[i] > 0 && devices_[i].is_cpu()) {
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
  return tensor_over(writable_bytes(tensor).data() + last.begin, type, tensor.getIntrusivePtr());
}

std::optional<std::tuple<int64_t, at::Tensor>> PiecewiseLoad::next() {
  std::unique_lock lock(mutex_);
  Piece piece{next_parts(), {}};
  if (piece.parts.empty()) {
    return std::nullopt;
  }
  piece.memory = memory_of(piece.parts);
  const auto begin = static_cast<int64_t>(position(piece.parts.front()));
  at::Tensor memory = piece.memory;
  in_flight_.emplace(begin, std::move(piece));
  lock.unlock();
  if (fresh_) {
    fresh_->prepare(writable_bytes(memory));  // has no effect on memory of other kinds
  }
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

int64_t PiecewiseLoad::finish(int64_t begin) {
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
  uint64_t wanted = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const Part& part : piece.parts) {
      wanted += part.nbytes;
      missing_[part.index] -= part.nbytes;
      if (missing_[part.index] == 0) {
        complete_now.push_back(part.index);
      }
    }
  }
  piece.memory.reset();
  for (const size_t index : complete_now) {
    complete(index);
    const std::lock_guard lock(mutex_);  // only now may `take` have it
    --incomplete_;
  }
  return static_cast<int64_t>(wanted);
}

/// By whoever filled the last of its bytes, so that what goes elsewhere is not kept here until all are there.
void PiecewiseLoad::complete(size_t index) {
  at::Tensor& tensor = tensors_[index];
  if (!recorded_.empty()) {
    found_[index] = checksum_of(*entries_[index], readable_bytes(tensor));
  }
  const c10::Device device = devices_[index];
  if (device.is_cpu()) {
    return;
  }
  at::Tensor elsewhere = empty_tensor(types_[index], device);
  if (!device.is_meta()) {
    elsewhere.copy_(tensor);
  }
  tensor = std::move(elsewhere);
}

PythonLoad::Parts PiecewiseLoad::take() {
  const std::lock_guard lock(mutex_);
  TORCH_CHECK(incomplete_ == 0 && tensors_.size() == entries_.size(), "not filled yet, or taken before");
  if (!recorded_.empty()) {
    compare_checksums(header_->source(), entries_, recorded_, found_);
  }
  auto [names, separator] = join_names(names_of(entries_));
  return {std::move(names), std::move(separator), std::exchange(tensors_, {})};
}

}  // namespace torch_safetensors::tensors
