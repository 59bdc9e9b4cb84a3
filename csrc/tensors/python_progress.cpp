#include "tensors/python_progress.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <vector>

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
  // A report may load with a report of its own.
  thread_local std::vector<std::unique_ptr<ProgressGuard>> guards;
  if (report) {
    guards.push_back(std::make_unique<ProgressGuard>(&call_python));
  } else if (!guards.empty()) {
    guards.pop_back();
  }
}

}  // namespace torch_safetensors::tensors
