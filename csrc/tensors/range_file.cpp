#include "tensors/range_file.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <utility>

#include "format/text.h"
#include "tensors/filename.h"
#include "tensors/save_plan.h"
#include "tensors/saved_header.h"

namespace torch_safetensors::tensors {

RangeFile::RangeFile(const std::string& filename, const std::vector<NamedTensor>& spec,
                     const std::optional<format::Metadata>& metadata, bool fsync, int64_t alignment)
    : path_(decode_filename(filename)), process_(::getpid()) {
  const std::vector<NamedTensor> types = on_meta(spec);
  const format::SerializedHeader header = make_header(Specs(types), metadata, std::nullopt, alignment);
  file_ = std::make_unique<io::AtomicFile>(path_, fsync, io::Order::kByOthers);
  file_->extend(header.bytes.size() + header.data_size);
  file_->write_at(0, std::as_bytes(std::span(header.bytes)));
  file_->publish_to_hosts();
}

void RangeFile::check_open() const {
  TORCH_CHECK_VALUE(file_ && process_ == ::getpid(), format::printable(path_),
                    ": was committed or given up before, or belongs to another process");
}

const std::string& RangeFile::temporary() const {
  check_open();
  return file_->temporary_path();
}

std::string RangeFile::commit() {
  check_open();
  const std::unique_ptr<io::AtomicFile> file = std::exchange(file_, nullptr);
  return tensors::commit(*file, path_);
}

std::string RangeFile::commit_as(const std::string& filename) {
  check_open();
  path_ = decode_filename(filename);
  file_->aim_at(path_);
  return commit();
}

void RangeFile::abort() {
  if (process_ == ::getpid()) {
    file_.reset();
  }
}

}  // namespace torch_safetensors::tensors
