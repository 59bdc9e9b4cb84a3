#pragma once

#include <torch/custom_class.h>

#include "tensors/python_save.h"
#include "tensors/range_file.h"

namespace torch_safetensors::tensors {

/// `torch.classes.safetensors._RangeFile`: a RangeFile for the Python package, its arguments in the forms of
/// python_save.h.
class PythonRangeFile : public torch::CustomClassHolder {
 public:
  PythonRangeFile(const std::string& filename, const std::string& names,
                  const std::vector<int64_t>& name_sizes, const WrappedTensors& spec,
                  const std::optional<Metadata>& metadata, bool fsync, int64_t alignment)
      : file_(filename, to_named(names, name_sizes, spec), to_format(metadata), fsync, alignment) {}

  /// As operators pass filenames.
  std::string temporary() const;
  std::string commit(const std::string& filename) { return file_.commit_as(filename); }
  void abort() { file_.abort(); }

 private:
  RangeFile file_;
};

/// `write_ranges`: each part with the offsets of the same place in their list.
void write_ranges_for_python(const std::string& temporary, const std::string& filename,
                             const std::string& names, const std::vector<int64_t>& name_sizes,
                             const WrappedTensors& parts, const std::vector<std::vector<int64_t>>& offsets,
                             bool fsync);

/// Throws for parts of tensors that cannot be written (check_savable.h); `overlap`: they may share memory.
void check_parts_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                            const WrappedTensors& parts, bool overlap);

}  // namespace torch_safetensors::tensors
