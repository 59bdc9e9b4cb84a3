#include "tensors/stream_writer.h"

#include <unistd.h>

#include <mutex>
#include <utility>

#include "format/text.h"
#include "io/progress.h"
#include "tensors/check_savable.h"
#include "tensors/device_save.h"
#include "tensors/filename.h"
#include "tensors/save_plan.h"
#include "tensors/saved_header.h"

namespace torch_safetensors::tensors {
namespace {

/// So many missing names are listed.
constexpr size_t kListed = 10;

}  // namespace

StreamWriter::StreamWriter(const std::string& filename, const std::vector<NamedTensor>& spec,
                           std::optional<format::Metadata> metadata, bool fsync, bool checksum,
                           int64_t alignment)
    : path_(decode_filename(filename)),
      source_(format::printable(path_)),
      spec_(on_meta(spec)),
      metadata_(std::move(metadata)),
      alignment_(alignment),
      positions_(spec_.size()),
      begun_(spec_.size()),
      written_(spec_.size()),
      process_(::getpid()) {
  if (checksum) {
    checksums_.emplace(spec_.size());  // whatever they will be, they are as long
  }
  const format::SerializedHeader planned = header();
  uint64_t end = planned.bytes.size();
  for (const size_t index : planned.order) {
    by_name_.emplace(spec_[index].name, index);
    positions_[index] = end;
    end += spec_[index].tensor.nbytes();
  }
  file_ = std::make_unique<io::AtomicFile>(path_, fsync, io::Order::kAtAnyPlace);
  file_->reserve(end);
}

format::SerializedHeader StreamWriter::header() const {
  return make_header(Specs(spec_), metadata_, checksums_, alignment_);
}

/// Before any lock, which a thread of the parent may have held when it forked.
void StreamWriter::check_process() const {
  TORCH_CHECK_VALUE(process_ == ::getpid(), source_, ": the writer belongs to the process that opened it");
}

void StreamWriter::check_open() const { TORCH_CHECK_VALUE(file_, source_, ": the writer ", end_); }

size_t StreamWriter::find(const NamedTensor& named) const {
  const auto& [name, tensor] = named;
  const std::string label = source_ + ": tensor " + format::in_quotes(name);
  const auto found = by_name_.find(name);
  TORCH_CHECK_VALUE(found != by_name_.end(), label, ": not in the spec, which has ", spec_.size(),
                    " tensors");
  const at::Tensor& expected = spec_[found->second].tensor;
  TORCH_CHECK_VALUE(tensor.scalar_type() == expected.scalar_type() && tensor.sizes() == expected.sizes(),
                    label, ": the spec says ", expected.scalar_type(), " ", expected.sizes(),
                    " but the tensor is ", tensor.scalar_type(), " ", tensor.sizes());
  return found->second;
}

/// With the lock that writes share or that excludes them.
void StreamWriter::check_not_failed() {
  std::string reason;
  {
    const std::lock_guard lock(failing_);
    reason = failure_;
  }
  TORCH_CHECK_VALUE(reason.empty(), source_, ": the writer ", reason);
}

/// To be called before the lock that writes share is given up: `close` may be waiting for it.
void StreamWriter::fail(std::string reason) noexcept {
  const std::lock_guard lock(failing_);
  if (failure_.empty()) {
    failure_ = std::move(reason);
  }
}

void StreamWriter::write(const NamedTensor& named) {
  check_process();
  std::shared_lock lock(mutex_);
  check_open();
  check_not_failed();
  const size_t index = find(named);
  const at::Tensor dense = packed(named).tensor;
  const std::string failed =
      "was aborted when tensor " + format::in_quotes(named.name) + " could not be written";
  TORCH_CHECK_VALUE(!begun_[index].exchange(true), source_, ": tensor ", format::in_quotes(named.name),
                    ": was written before");
  try {
    put(index, dense);
    written_[index] = true;
  } catch (...) {
    fail(failed);
    lock.unlock();
    give_up(failed);
    throw;
  }
}

void StreamWriter::put(size_t index, const at::Tensor& tensor) {
  const Specs specs({&spec_[index], 1});
  const format::TensorSpec& spec = std::span<const format::TensorSpec>(specs).front();
  std::optional<format::ChecksumBuilder> checksum;
  if (checksums_) {
    checksum.emplace(spec.name, spec.dtype, spec.shape);
  }
  uint64_t position = positions_[index];
  io::Progress progress(tensor.nbytes());
  emit_bytes(tensor, [&](std::span<const std::byte> piece) {
    if (checksum) {
      checksum->add(piece);
    }
    file_->write_at(position, piece);
    position += piece.size();
  });
  progress.finish();
  if (checksum) {
    (*checksums_)[index] = checksum->build();
  }
}

std::string StreamWriter::close() {
  check_process();
  const std::unique_lock lock(mutex_);
  if (published_) {
    return {};
  }
  check_open();
  try {
    check_not_failed();
    const std::string missing = list_missing();
    TORCH_CHECK_VALUE(missing.empty(), source_, ": ", missing);
    const std::string bytes = header().bytes;
    file_->write_at(0, std::as_bytes(std::span(bytes)));
    std::string warning = commit(*file_, path_);
    end(/*published=*/true);
    return warning;
  } catch (...) {
    end(file_->is_published());
    throw;
  }
}

/// With the lock that excludes writes.
void StreamWriter::end(bool published) {
  file_.reset();
  published_ = published;
  end_ = published ? "is closed" : "was aborted when it could not be closed";
}

void StreamWriter::abort() {
  if (process_ == ::getpid()) {
    give_up("was aborted");
  }
}

void StreamWriter::give_up(const std::string& reason) {
  const std::unique_lock lock(mutex_);
  if (file_) {
    file_.reset();
    end_ = reason;
  }
}

std::string StreamWriter::list_missing() const {
  std::string names;
  size_t missing = 0;
  for (size_t i = 0; i < spec_.size(); ++i) {
    if (!written_[i]) {
      if (++missing <= kListed) {
        names += (names.empty() ? "" : ", ") + format::in_quotes(spec_[i].name);
      }
    }
  }
  if (missing == 0) {
    return {};
  }
  if (missing > kListed) {
    names += " and " + std::to_string(missing - kListed) + " more";
  }
  return std::to_string(missing) + " of " + std::to_string(spec_.size()) +
         " tensors were not written: " + names;
}

}  // namespace torch_safetensors::tensors
