#include "tensors/lock_wait.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

namespace torch_safetensors::tensors {

void on_lock_wait(const std::string& notice) {
  const auto python = c10::Dispatcher::singleton().findSchema({"safetensors::_on_lock_wait", ""});
  if (python && python->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd)) {
    python->typed<void(std::string)>().call(notice);
  } else if (!notice.empty()) {
    TORCH_WARN(notice);
  }
}

}  // namespace torch_safetensors::tensors
