#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "staging/prefetch_queue.h"
#include "tensors/checkpoint.h"
#include "tensors/device_load.h"

namespace torch_safetensors::tensors {

/// Bytes that a background load keeps ready, unless told otherwise: some of the largest tensors there are.
inline constexpr size_t kDefaultBuffer = size_t{1} << 30;

/// A tensor, or rows of one, to be loaded under its name.
struct NamedRows {
  std::string name;
  Wanted wanted;
};

/// Threads that read tensors in the order of the file and what they have read. To the CPU they read straight
/// into the tensors, to other devices through the ring and a lane on which the tensors are allocated, too.
class BackgroundLoad {
 public:
  /// `rows` in the order of their sources; the checkpoint of `source` must outlive this. Throws
  /// std::system_error if not one thread can be started.
  BackgroundLoad(CheckpointBytes source, std::vector<NamedRows> rows, c10::Device device,
                 const TransferSettings& settings, size_t buffer_size);
  ~BackgroundLoad() { stop(); }
  BackgroundLoad(const BackgroundLoad&) = delete;
  BackgroundLoad& operator=(const BackgroundLoad&) = delete;

  const std::vector<NamedRows>& rows() const { return rows_; }
  std::optional<size_t> find(const std::string& name) const;
  bool is_of_this_process() const;

  /// Says who gets which of the rows when.
  staging::PrefetchQueue& queue() { return *queue_; }

  /// The tensor that the queue gave the caller, for the calling thread's current stream. Undefined if the
  /// load was stopped meanwhile.
  at::Tensor hand_out(size_t item);

  /// Ends the threads, each after the chunk it is at, and drops tensors not handed out.
  void stop();

 private:
  void start(size_t threads);
  void work() noexcept;
  void leave() noexcept;
  void load_chunk(size_t index);
  void make_unit(size_t unit);
  void read_straight(const staging::Chunk& chunk) const;
  void read_through_ring(const staging::Chunk& chunk);

  CheckpointBytes source_;
  std::vector<NamedRows> rows_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<staging::Item> items_;
  std::vector<TensorType> types_;
  c10::Device device_;
  std::shared_ptr<DeviceLane> lane_;  // null: the CPU, or a backend that has none
  std::shared_ptr<staging::BlockRing> ring_;
  staging::ChunkPlan plan_;
  DeviceMemory memory_{0, 0};
  std::vector<std::shared_ptr<LaneFence>> fences_;  // by unit, set before it is published
  std::vector<size_t> unit_of_;
  std::unique_ptr<staging::PrefetchQueue> queue_;
  std::mutex making_;          // of tensors, and giving them out
  std::vector<size_t> left_;   // by unit: not handed out
  std::vector<bool> is_made_;  // by unit
  std::mutex stopping_;
  std::vector<std::thread> threads_;
  std::atomic<size_t> working_{1};  // threads, and the one that starts them
  const pid_t process_;
};

}  // namespace torch_safetensors::tensors
