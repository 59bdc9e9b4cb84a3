#include "io/held_lock.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include "io/file_lock.h"
#include "io/lock_holder.h"
#include "io/os_error.h"
#include "io/path_checks.h"

namespace torch_safetensors::io {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kVariable = "TORCH_SAFETENSORS_LOCK_TIMEOUT";
constexpr double kDefaultLimit = 600;
constexpr double kLongestLimit = 1e9;  // a number of milliseconds has to hold it

/// Attempts come further apart the longer the wait is, up to this: Ctrl-C is heard after no more.
constexpr std::chrono::milliseconds kLongestPause{100};

/// A file that the calling thread has locked.
struct Held {
  struct stat status;
  pid_t process;  // of a forked child, the parent's locks are not its own
};

// Of the thread, so that a fork cannot leave a mutex of it locked.
thread_local std::vector<Held> held_here;

std::vector<Held>::iterator find_held(int descriptor) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) {
    return held_here.end();
  }
  return std::find_if(held_here.begin(), held_here.end(), [&](const Held& held) {
    return held.process == ::getpid() && is_same_file(held.status, status);
  });
}

void remember(int descriptor) {
  struct stat status;
  if (::fstat(descriptor, &status) == 0) {
    held_here.push_back({status, ::getpid()});
  }
}

/// One wait, from the first attempt that failed.
class Wait {
 public:
  Wait(int descriptor, const std::string& given, const Patience& patience)
      : descriptor_(descriptor), given_(given), patience_(patience) {}

  /// Returns when it is time for another attempt. Throws at the end of the patience.
  void pause(const OnWait& on_wait) {
    const std::chrono::duration<double> waited = Clock::now() - begin_;
    if (waited >= patience_.limit) {
      throw_too_long();
    }
    if (on_wait) {
      on_wait(notice(waited));
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(patience_.limit - waited);
    std::this_thread::sleep_for(
        std::clamp(left, std::chrono::milliseconds(1), std::chrono::milliseconds(pause_)));
    pause_ = std::min(2 * pause_, kLongestPause);
  }

 private:
  std::string notice(std::chrono::duration<double> waited) {
    if (is_told_ || waited < patience_.notice) {
      return {};
    }
    is_told_ = true;
    return "waiting for the lock of " + quoted_path(given_) + ", which " + lock_holder(descriptor_) +
           " holds";
  }

  [[noreturn]] void throw_too_long() const {
    const auto seconds = std::llround(patience_.limit.count());
    throw_os_error(ETIMEDOUT,
                   "waited " + std::to_string(seconds) + " seconds for its lock, which " +
                       lock_holder(descriptor_) + " holds; " + kVariable + " sets how long",
                   given_);
  }

  int descriptor_;
  const std::string& given_;
  const Patience& patience_;
  Clock::time_point begin_ = Clock::now();
  std::chrono::milliseconds pause_{1};
  bool is_told_ = false;
};

void wait_for_lock(int descriptor, const std::string& given, const OnWait& on_wait,
                   std::optional<Patience> patience) {
  std::optional<Wait> wait;
  for (;;) {
    switch (try_lock(descriptor)) {
      case Lock::kAcquired:
        return;
      case Lock::kUnsupported:
        throw_os_error(errno, given);
      case Lock::kBusy:
        break;
    }
    if (!wait) {
      if (find_held(descriptor) != held_here.end()) {
        throw_os_error(EDEADLK,
                       "this thread holds its lock already: a function that reports progress cannot begin "
                       "another save there",
                       given);
      }
      if (!patience) {
        patience = Patience::from_environment(given);
      }
      wait.emplace(descriptor, given, *patience);
    }
    wait->pause(on_wait);
  }
}

/// The lock, so that the guard is made when there is one.
int locked(int descriptor, const std::string& given, const OnWait& on_wait,
           std::optional<Patience> patience) {
  wait_for_lock(descriptor, given, on_wait, std::move(patience));
  remember(descriptor);
  return descriptor;
}

}  // namespace

Patience Patience::from_environment(const std::string& given) {
  const char* const text = std::getenv(kVariable);
  if (text == nullptr) {
    return {std::chrono::duration<double>(kDefaultLimit)};
  }
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !std::isfinite(seconds) || seconds < 0) {
    throw_os_error(EINVAL, std::string(kVariable) + " must be a number of seconds, not '" + text + "'",
                   given);
  }
  return {std::chrono::duration<double>(std::min(seconds, kLongestLimit))};
}

HeldLock::HeldLock(int descriptor, const std::string& given, const OnWait& on_wait)
    : lock_(locked(descriptor, given, on_wait, std::nullopt)), descriptor_(descriptor) {}

HeldLock::HeldLock(int descriptor, const std::string& given, const OnWait& on_wait, const Patience& patience)
    : lock_(locked(descriptor, given, on_wait, patience)), descriptor_(descriptor) {}

HeldLock::~HeldLock() {
  if (const auto held = find_held(descriptor_); held != held_here.end()) {
    held_here.erase(held);
  }
}

}  // namespace torch_safetensors::io
