#pragma once

#include <torch/custom_class.h>

#include "tensors/python_save.h"
#include "tensors/stream_writer.h"

namespace torch_safetensors::tensors {

/// `torch.classes.safetensors._Writer`: a StreamWriter for the Python package, its arguments in the forms of
/// python_save.h.
class PythonWriter : public torch::CustomClassHolder {
 public:
  PythonWriter(const std::string& filename, const std::string& names, const std::vector<int64_t>& name_sizes,
               const WrappedTensors& spec, const std::optional<Metadata>& metadata, bool fsync, bool checksum,
               int64_t alignment)
      : writer_(filename, to_named(names, name_sizes, spec), to_format(metadata), fsync, checksum,
                alignment) {}

  void write(const std::string& name, const at::Tensor& tensor) { writer_.write({name, tensor}); }
  std::string close() { return writer_.close(); }
  void abort() { writer_.abort(); }

 private:
  StreamWriter writer_;
};

}  // namespace torch_safetensors::tensors
