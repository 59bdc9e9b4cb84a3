#include "tensors/python_save.h"

#include "tensors/storage.h"

namespace torch_safetensors::tensors {

void PythonSave::write_to(const at::Tensor& out) const {
  TORCH_CHECK_VALUE(out.is_cpu() && out.is_contiguous() && out.nbytes() == plan_.size(), "out has ",
                    out.nbytes(), " bytes but ", plan_.size(), " are to be written");
  plan_.write_to(writable_bytes(out));
}

}  // namespace torch_safetensors::tensors
