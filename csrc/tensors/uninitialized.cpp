#include "tensors/uninitialized.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "format/text.h"

namespace torch_safetensors::tensors {
namespace {

/// As WrappedTensors (python_save.h), so that nothing but Python looks at the tensor.
using Wrapped = c10::List<c10::List<at::Tensor>>;

bool is_uninitialized(const at::Tensor& tensor) {
  const auto op = c10::Dispatcher::singleton().findSchema({"safetensors::_is_uninitialized", ""});
  if (!op || !op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd)) {
    return false;
  }
  return op->typed<bool(Wrapped)>().call(Wrapped({c10::List<at::Tensor>({tensor})}));
}

}  // namespace

void check_initialized(const NamedTensor& named) {
  const auto& [name, tensor] = named;
  const bool may_be = tensor.dim() == 1 && tensor.numel() == 0;  // nothing else costs a call
  TORCH_CHECK_VALUE(
      !may_be || !is_uninitialized(tensor), "tensor ", format::in_quotes(name),
      " is an uninitialized parameter or buffer, which has no shape and no values yet: run its lazy "
      "module once, or materialize it, first");
}

}  // namespace torch_safetensors::tensors
