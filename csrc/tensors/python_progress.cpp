#include "tensors/python_progress.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

void call_python(uint64_t done, uint64_t total) {
  static const auto report = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("safetensors::_report", "")
                                 .typed<void(int64_t, int64_t)>();
  report.call(static_cast<int64_t>(done), static_cast<int64_t>(total));
}

}  // namespace

void report_to_python(bool report) {
  thread_local std::optional<ProgressGuard> guard;
  guard.reset();
  if (report) {
    guard.emplace(&call_python);
  }
}

}  // namespace torch_safetensors::tensors
