#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>

namespace torch_safetensors::io {

/// Told how many bytes of how many are done. What it throws stops the operation.
using Report = std::function<void(uint64_t done, uint64_t total)>;

/// Who is told of the operations that the calling thread begins; null for nobody. Returns who was before.
const Report* exchange_report(const Report* report) noexcept;

/// So many bytes are moved between two reports, at most, where one thread does it alone.
inline constexpr size_t kReported = size_t{8} << 20;

/// How far an operation has come, as told to the report of the thread that makes it. An operation within
/// another one counts for that. Without a report, it costs nothing.
class Progress {
 public:
  /// Reports that nothing of `total` bytes is done. Throws what the report throws, as all below.
  explicit Progress(uint64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// What the calling thread is in the middle of; null where nobody wants to know.
  static Progress* current() noexcept;

  /// So many bytes more are done. Any thread may say so; the one that began reports it.
  void advance(uint64_t bytes);

  /// Reports that all are.
  void finish();

 private:
  void report(uint64_t done);

  const Report* report_;  // null for one that is of no use
  uint64_t total_;
  std::atomic<uint64_t> done_{0};
  uint64_t reported_ = 0;
  std::thread::id thread_ = std::this_thread::get_id();
};

}  // namespace torch_safetensors::io
