#include "io/progress.h"

#include <algorithm>
#include <utility>

namespace torch_safetensors::io {
namespace {

// Of the thread, and not an argument: between who asks and the loop that knows lies every layer.
thread_local const Report* wanted = nullptr;
thread_local Progress* under_way = nullptr;

/// Operations that a report begins are none of its business.
class Silence {
 public:
  Silence() : wanted_(std::exchange(wanted, nullptr)), under_way_(std::exchange(under_way, nullptr)) {}
  ~Silence() {
    wanted = wanted_;
    under_way = under_way_;
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  const Report* wanted_;
  Progress* under_way_;
};

}  // namespace

const Report* exchange_report(const Report* report) noexcept { return std::exchange(wanted, report); }

Progress::Progress(uint64_t total) : report_(under_way == nullptr ? wanted : nullptr), total_(total) {
  if (report_ != nullptr) {
    report(0);
    under_way = this;
  }
}

Progress::~Progress() {
  if (under_way == this) {
    under_way = nullptr;
  }
}

Progress* Progress::current() noexcept { return under_way; }

void Progress::advance(uint64_t bytes) {
  const uint64_t done = done_.fetch_add(bytes) + bytes;
  if (std::this_thread::get_id() == thread_) {
    report(std::min(done, total_));
  }
}

void Progress::finish() {
  if (report_ != nullptr && reported_ < total_) {
    report(total_);
  }
}

void Progress::report(uint64_t done) {
  reported_ = done;
  const Silence silence;
  (*report_)(done, total_);
}

}  // namespace torch_safetensors::io
