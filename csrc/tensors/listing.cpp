#include "tensors/listing.h"

#include <memory>
#include <string_view>

namespace torch_safetensors::tensors {
namespace {

class ListingBuilder {
 public:
  void add(const OpenFile& file, std::span<const format::TensorEntry* const> entries) {
    for (const format::TensorEntry* of_file : entries) {
      const format::TensorEntry& entry = *of_file;
      names_.push_back(entry.name);
      dtypes_.emplace_back(format::dtype_name(entry.dtype));
      dims_.push_back(static_cast<int64_t>(entry.shape.size()));
      shapes_.insert(shapes_.end(), entry.shape.begin(), entry.shape.end());
      sizes_.push_back(static_cast<int64_t>(entry.nbytes()));
      positions_.push_back(static_cast<int64_t>(file.position(entry)));
      which_file_.push_back(static_cast<int64_t>(files_.size()));
    }
    files_.push_back(file.source());
    const format::TensorEntry first{};
    data_begins_.push_back(static_cast<int64_t>(file.position(first)));
  }

  Listing build() && {
    return {join_names(names_),     std::move(dtypes_), std::move(dims_),
            std::move(shapes_),     std::move(sizes_),  std::move(positions_),
            std::move(which_file_), std::move(files_),  std::move(data_begins_)};
  }

 private:
  std::vector<std::string_view> names_;
  std::vector<std::string> dtypes_;
  std::vector<int64_t> dims_;
  std::vector<int64_t> shapes_;
  std::vector<int64_t> sizes_;
  std::vector<int64_t> positions_;
  std::vector<int64_t> which_file_;
  std::vector<std::string> files_;
  std::vector<int64_t> data_begins_;
};

}  // namespace

Listing list_tensors(const c10::intrusive_ptr<SafeOpen>& handle) {
  ListingBuilder builder;
  const Checkpoint& checkpoint = handle->file();
  checkpoint.require_whole(/*strict_index=*/false);
  const std::vector<const format::TensorEntry*> entries = checkpoint.entries();
  std::span<const format::TensorEntry* const> left(entries);
  for (const std::unique_ptr<OpenFile>& file : checkpoint.files()) {
    size_t count = 0;
    while (count < left.size() && &checkpoint.file_of(*left[count]) == file.get()) {
      ++count;
    }
    builder.add(*file, left.first(count));
    left = left.subspan(count);
  }
  return std::move(builder).build();
}

}  // namespace torch_safetensors::tensors
