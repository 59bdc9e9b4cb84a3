#include "tensors/save_plan.h"

#include <ATen/Functions.h>

#include "format/text.h"
#include "io/parallel_copy.h"
#include "io/progress.h"
#include "tensors/checksums.h"
#include "tensors/device_save.h"
#include "tensors/filename.h"
#include "tensors/saved_header.h"
#include "tensors/storage.h"

namespace torch_safetensors {
namespace tensors {
namespace {

using Bytes = std::span<const std::byte>;

/// So many pieces are handed to the file at a time.
constexpr size_t kBatch = 16384;

}  // namespace

SavePlan::SavePlan(std::vector<NamedTensor> tensors, const std::optional<format::Metadata>& metadata,
                   bool checksum, int64_t alignment, Overlap overlap)
    : tensors_(std::move(tensors)) {
  check_savable(tensors_, overlap);
  const Specs specs(tensors_);
  std::optional<std::vector<format::Checksum>> checksums;
  if (checksum) {
    checksums = checksums_of(tensors_, specs);
  }
  header_ = make_header(specs, metadata, checksums, alignment);
}

template <typename Emit>
void SavePlan::for_each_piece(Emit emit) const {
  emit(std::as_bytes(std::span(header_.bytes)), /*is_temporary=*/false);
  DeviceReader others([&](Bytes piece) { emit(piece, /*is_temporary=*/true); });
  for (const size_t index : header_.order) {
    const at::Tensor& tensor = tensors_[index].tensor;
    if (lies_here(tensor)) {
      others.flush();
      emit(readable_bytes(tensor), /*is_temporary=*/false);
    } else {
      others.add(tensor);
    }
  }
  others.flush();
}

void SavePlan::write_to(std::span<std::byte> out) const {
  io::HugePages fresh(out);
  std::vector<io::CopyRange> batch;
  size_t done = 0;
  for_each_piece([&](Bytes piece, bool is_temporary) {
    batch.push_back({piece, out.data() + done});
    done += piece.size();
    if (is_temporary) {
      io::copy_ranges(batch, &fresh);
      batch.clear();
    }
  });
  io::copy_ranges(batch, &fresh);
}

std::string SavePlan::write_to(const std::string& filename, bool fsync) const {
  const std::string path = decode_filename(filename);
  io::AtomicFile file(path, fsync);
  write_to(file);
  return commit(file, path);
}

void SavePlan::write_to(io::AtomicFile& file) const {
  io::Progress progress(size());
  std::vector<Bytes> batch;
  for_each_piece([&](Bytes piece, bool is_temporary) {
    batch.push_back(piece);
    if (is_temporary || batch.size() == kBatch) {
      file.write(batch);
      batch.clear();
    }
  });
  file.write(batch);
  progress.finish();
}

std::string commit(io::AtomicFile& file, const std::string& path) {
  if (file.commit() == io::Commit::kRenamed) {
    return {};
  }
  return format::printable(path) +
         ": the file system cannot rename, so this save was not atomic: it was written in place";
}

void warn_of(const std::string& warning) {
  if (!warning.empty()) {
    TORCH_WARN(warning);
  }
}

std::vector<NamedTensor> to_named(const TensorDict& tensors) {
  std::vector<NamedTensor> named;
  named.reserve(tensors.size());
  for (const auto& item : tensors) {
    named.push_back({item.key(), item.value()});
  }
  return named;
}

std::optional<format::Metadata> to_format(const std::optional<Metadata>& metadata) {
  if (!metadata) {
    return std::nullopt;
  }
  format::MetadataBuilder result;
  for (const auto& item : *metadata) {
    result.add(item.key(), item.value());
  }
  return std::move(result).build();
}

int64_t saved_size(const TensorDict& tensors, const std::optional<Metadata>& metadata, bool checksum) {
  const std::vector<NamedTensor> named = to_named(tensors);
  for (const NamedTensor& tensor : named) {
    check_dtype(tensor);
  }
  // Whatever they are, they are as long.
  std::optional<std::vector<format::Checksum>> checksums;
  if (checksum) {
    checksums.emplace(named.size());
  }
  const format::SerializedHeader header = make_header(Specs(named), to_format(metadata), checksums);
  return static_cast<int64_t>(header.bytes.size() + header.data_size);
}

void save_dict(const TensorDict& tensors, const std::string& filename,
               const std::optional<Metadata>& metadata, bool fsync, bool checksum,
               std::optional<int64_t> alignment) {
  save_file(tensors, filename, metadata, fsync, checksum, alignment.value_or(0));
}

void save_tensors(const std::string& filename, const std::vector<std::string>& names,
                  const std::vector<at::Tensor>& tensors,
                  const std::optional<std::vector<std::string>>& metadata, bool fsync, bool checksum,
                  std::optional<int64_t> alignment) {
  TORCH_CHECK_VALUE(names.size() == tensors.size(), "there are ", names.size(), " names for ", tensors.size(),
                    " tensors");
  TensorDict dict;
  for (size_t i = 0; i < names.size(); ++i) {
    TORCH_CHECK_VALUE(dict.insert(names[i], tensors[i]).second, "tensor ", format::in_quotes(names[i]),
                      ": its name is given twice");
  }
  std::optional<Metadata> pairs;
  if (metadata) {
    TORCH_CHECK_VALUE(metadata->size() % 2 == 0, "metadata must alternate keys and values, but has ",
                      metadata->size(), " entries");
    pairs.emplace();
    for (size_t i = 0; i < metadata->size(); i += 2) {
      pairs->insert_or_assign((*metadata)[i], (*metadata)[i + 1]);
    }
  }
  save_dict(dict, filename, pairs, fsync, checksum, alignment);
}

}  // namespace tensors

void save_file(const TensorDict& tensors, const std::string& filename,
               const std::optional<Metadata>& metadata, bool fsync, bool checksum, int64_t alignment) {
  const tensors::SavePlan plan(tensors::to_named(tensors), tensors::to_format(metadata), checksum, alignment);
  tensors::warn_of(plan.write_to(filename, fsync));
}

at::Tensor save(const TensorDict& tensors, const std::optional<Metadata>& metadata, bool checksum) {
  const tensors::SavePlan plan(tensors::to_named(tensors), tensors::to_format(metadata), checksum);
  at::Tensor bytes = at::empty({static_cast<int64_t>(plan.size())}, at::kByte);
  plan.write_to(tensors::writable_bytes(bytes));
  return bytes;
}

}  // namespace torch_safetensors
