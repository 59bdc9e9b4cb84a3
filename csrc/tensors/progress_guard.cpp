#include "io/progress.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {

ProgressGuard::ProgressGuard(Report report)
    : report_(std::move(report)), outer_(io::exchange_report(&report_)) {}

ProgressGuard::~ProgressGuard() { io::exchange_report(outer_); }

}  // namespace torch_safetensors
