#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "staging/chunk_plan.h"

namespace torch_safetensors::staging {

/// Who reads what next in a background load, and who may have what is there. Readers take chunks in the order
/// of the plan, except that the unit of an item somebody waits for goes first. They pause while `budget`
/// bytes are begun or ready and not handed out; what somebody waits for goes past that bound, as does a unit
/// when nothing else is under way, so that no order of taking and no size of a unit comes to a stop.
class PrefetchQueue {
 public:
  PrefetchQueue(const ChunkPlan& plan, std::span<const Item> items, size_t budget);

  // For readers.

  /// The next chunk to read, when there is room for it. Nothing where there is no work left, or none wanted.
  std::optional<size_t> next_chunk();
  /// True for the reader that finished the last chunk of its unit: it publishes the unit.
  bool finish_chunk(size_t chunk);
  void publish(size_t unit);
  /// Ends the load: those who wait get this error, which is kept unless there was one before.
  void fail(std::exception_ptr error);
  bool is_stopped() const;

  // For those who take.

  enum class Answer {
    kYours,    ///< It is ready, and nobody else gets it.
    kNotYet,   ///< Not within the time.
    kTaken,    ///< Somebody had it before.
    kStopped,  ///< The load was stopped.
  };

  /// Waits for an item. Throws the error of a load that failed before the item was ready.
  Answer take(size_t item, std::chrono::milliseconds timeout);

  struct Next {
    Answer answer;  ///< kTaken: all were.
    size_t item = 0;
  };

  /// Waits for any item, in the order in which they became ready.
  Next take_any(std::chrono::milliseconds timeout);

  /// Readers get no more work; nothing is handed out any more.
  void stop();

 private:
  enum class State : char { kPending, kReady, kTaken };
  struct UnitState {
    size_t chunks_left;
    bool is_begun = false;
    bool is_urgent = false;
  };
  /// Chunks of a unit that no reader has taken yet.
  struct Open {
    size_t next;
    size_t end;
  };

  std::optional<size_t> next_unit();
  size_t begin(size_t unit);
  void hasten(size_t unit);
  void hand_out(size_t item);
  void make_ready(size_t item);

  const ChunkPlan& plan_;
  const std::span<const Item> items_;
  const size_t budget_;
  mutable std::mutex mutex_;
  std::condition_variable work_;   // readers wait here
  std::condition_variable ready_;  // takers
  std::vector<UnitState> units_;
  std::vector<size_t> unit_of_;
  std::vector<State> states_;
  std::deque<Open> open_;
  std::deque<size_t> urgent_;
  std::deque<size_t> ready_items_;  // some may have been taken since
  size_t next_unit_ = 0;
  size_t outstanding_ = 0;  // bytes begun or ready, and not handed out
  size_t left_;             // items not handed out
  bool is_stopped_ = false;
  std::exception_ptr error_;
};

}  // namespace torch_safetensors::staging
