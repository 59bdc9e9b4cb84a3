#include "tensors/python_ranges.h"

#include "shared/filename.h"
#include "tensors/check_savable.h"
#include "tensors/write_ranges.h"

namespace torch_safetensors::tensors {

std::string PythonRangeFile::temporary() const { return shared::encode_filename(file_.temporary()); }

void write_ranges_for_python(const std::string& temporary, const std::string& filename,
                             const std::string& names, const std::vector<int64_t>& name_sizes,
                             const WrappedTensors& parts, const std::vector<std::vector<int64_t>>& offsets,
                             bool fsync) {
  std::vector<NamedTensor> named = to_named(names, name_sizes, parts);
  TORCH_CHECK_VALUE(named.size() == offsets.size(), "there are ", offsets.size(), " offsets for ",
                    named.size(), " tensors");
  std::vector<Box> boxes;
  boxes.reserve(named.size());
  for (size_t i = 0; i < named.size(); ++i) {
    boxes.push_back({std::move(named[i]), offsets[i]});
  }
  write_ranges(temporary, filename, boxes, fsync);
}

void check_parts_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                            const WrappedTensors& parts, bool overlap) {
  check_parts_savable(to_named(names, name_sizes, parts),
                      overlap ? Overlap::kWrittenTwice : Overlap::kRefused);
}

}  // namespace torch_safetensors::tensors
