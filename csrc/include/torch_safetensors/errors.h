#pragma once

#include <stdexcept>
#include <string>

#if defined(_WIN32)
#define TORCH_SAFETENSORS_API
#else
/// Everything else of the library is built with hidden visibility.
#define TORCH_SAFETENSORS_API __attribute__((visibility("default")))
#endif

namespace torch_safetensors {

/// A file or buffer that is not valid safetensors, or that does not hold what was asked of it.
/// The message reads `<file>: tensor '<name>': <what is wrong, with the numbers>`.
class TORCH_SAFETENSORS_API SafetensorError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A failure that the operating system reported. The message reads as Python's own
/// `str(OSError)`: `[Errno <number>] <text>: '<path>'`.
class TORCH_SAFETENSORS_API OsError : public std::runtime_error {
 public:
  OsError(int error_number, const std::string& message)
      : std::runtime_error(message), error_number_(error_number) {}

  /// The value of `errno`, e.g. ENOENT.
  int error_number() const noexcept { return error_number_; }

 private:
  int error_number_;
};

}  // namespace torch_safetensors
