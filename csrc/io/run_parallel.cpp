#include "io/run_parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace torch_safetensors::io {

size_t default_threads() { return std::clamp(std::thread::hardware_concurrency(), 1U, 8U); }

void run_parallel(size_t items, size_t threads, const std::function<void(size_t)>& run_item) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr first_error;
  const auto work = [&]() noexcept {
    try {
      for (size_t item; (item = next.fetch_add(1)) < items;) {
        run_item(item);
      }
    } catch (...) {
      next.store(items);
      const std::lock_guard lock(mutex);
      if (!first_error) {
        first_error = std::current_exception();
      }
    }
  };

  std::vector<std::thread> helpers;
  try {
    const size_t wanted = std::min(threads, items);
    helpers.reserve(wanted);
    while (helpers.size() + 1 < wanted) {
      helpers.emplace_back(work);
    }
  } catch (const std::exception&) {
    // Out of threads or memory (a limit of the container): those that did start share the work.
  }
  work();
  for (std::thread& helper : helpers) {
    helper.join();
  }
  if (first_error) {
    std::rethrow_exception(first_error);
  }
}

}  // namespace torch_safetensors::io
