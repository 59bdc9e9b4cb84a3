#include "staging/prefetch_queue.h"

#include <algorithm>
#include <utility>

namespace torch_safetensors::staging {

PrefetchQueue::PrefetchQueue(const ChunkPlan& plan, std::span<const Item> items, size_t budget)
    : plan_(plan),
      items_(items),
      budget_(budget),
      unit_of_(items.size(), 0),
      states_(items.size(), State::kPending),
      left_(items.size()) {
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    units_.push_back({plan.units[unit].chunk_count});
    for (const Part& part : plan.parts_of(plan.units[unit])) {
      unit_of_[part.item] = unit;
    }
  }
  for (size_t item = 0; item < items.size(); ++item) {
    if (items[item].nbytes == 0) {
      make_ready(item);
    }
  }
}

std::optional<size_t> PrefetchQueue::next_chunk() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (is_stopped_ || error_) {
      return std::nullopt;
    }
    if (const std::optional<size_t> unit = next_unit()) {
      const size_t first = begin(*unit);
      work_.notify_all();
      return first;
    }
    if (!open_.empty()) {
      Open& open = open_.front();
      const size_t chunk = open.next++;
      if (open.next == open.end) {
        open_.pop_front();
      }
      return chunk;
    }
    if (next_unit_ == units_.size()) {
      return std::nullopt;
    }
    work_.wait(lock);
  }
}

/// A unit to begin now; before that, those begun are to be read to their end.
std::optional<size_t> PrefetchQueue::next_unit() {
  while (!urgent_.empty()) {
    const size_t unit = urgent_.front();
    urgent_.pop_front();
    if (!units_[unit].is_begun) {
      return unit;
    }
  }
  while (next_unit_ < units_.size() && units_[next_unit_].is_begun) {
    ++next_unit_;
  }
  if (!open_.empty() || next_unit_ == units_.size()) {
    return std::nullopt;
  }
  const size_t nbytes = plan_.units[next_unit_].nbytes;
  const bool fits = outstanding_ == 0 || (outstanding_ <= budget_ && nbytes <= budget_ - outstanding_);
  return fits ? std::optional(next_unit_) : std::nullopt;
}

/// Its first chunk is the caller's.
size_t PrefetchQueue::begin(size_t unit) {
  const Unit& plan = plan_.units[unit];
  units_[unit].is_begun = true;
  for (const Part& part : plan_.parts_of(plan)) {
    // Rather than the unit's size: each item's bytes are taken off one by one.
    outstanding_ += part.nbytes;
  }
  if (plan.chunk_count > 1) {
    open_.push_front({plan.first_chunk + 1, plan.first_chunk + plan.chunk_count});
  }
  return plan.first_chunk;
}

bool PrefetchQueue::finish_chunk(size_t chunk) {
  const std::lock_guard lock(mutex_);
  return --units_[plan_.chunks[chunk].unit].chunks_left == 0;
}

void PrefetchQueue::publish(size_t unit) {
  const std::lock_guard lock(mutex_);
  for (const Part& part : plan_.parts_of(plan_.units[unit])) {
    if (part.item_offset == 0) {
      make_ready(part.item);
    }
  }
  ready_.notify_all();
}

void PrefetchQueue::make_ready(size_t item) {
  states_[item] = State::kReady;
  ready_items_.push_back(item);
}

void PrefetchQueue::fail(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (!error_) {
    error_ = std::move(error);
  }
  work_.notify_all();
  ready_.notify_all();
}

bool PrefetchQueue::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return is_stopped_ || error_;
}

void PrefetchQueue::stop() {
  const std::lock_guard lock(mutex_);
  is_stopped_ = true;
  work_.notify_all();
  ready_.notify_all();
}

PrefetchQueue::Answer PrefetchQueue::take(size_t item, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  const auto is_decided = [&] { return is_stopped_ || error_ || states_[item] != State::kPending; };
  if (!is_decided()) {
    hasten(unit_of_[item]);
    ready_.wait_for(lock, timeout, is_decided);
  }
  if (is_stopped_) {
    return Answer::kStopped;
  }
  if (states_[item] == State::kTaken) {
    return Answer::kTaken;
  }
  if (states_[item] == State::kReady) {
    hand_out(item);
    return Answer::kYours;
  }
  if (error_) {
    std::rethrow_exception(error_);
  }
  return Answer::kNotYet;
}

PrefetchQueue::Next PrefetchQueue::take_any(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  const auto skip_taken = [&] {
    while (!ready_items_.empty() && states_[ready_items_.front()] == State::kTaken) {
      ready_items_.pop_front();
    }
    return !ready_items_.empty();
  };
  ready_.wait_for(lock, timeout, [&] { return is_stopped_ || skip_taken() || error_ || left_ == 0; });
  if (is_stopped_) {
    return {Answer::kStopped};
  }
  if (!ready_items_.empty()) {
    const size_t item = ready_items_.front();
    hand_out(item);
    return {Answer::kYours, item};
  }
  if (left_ == 0) {
    return {Answer::kTaken};
  }
  if (error_) {
    std::rethrow_exception(error_);
  }
  return {Answer::kNotYet};
}

void PrefetchQueue::hasten(size_t unit) {
  if (!units_[unit].is_begun && !units_[unit].is_urgent) {
    units_[unit].is_urgent = true;
    urgent_.push_back(unit);
    work_.notify_one();
  }
}

void PrefetchQueue::hand_out(size_t item) {
  states_[item] = State::kTaken;
  outstanding_ -= items_[item].nbytes;
  --left_;
  work_.notify_all();
  if (left_ == 0) {
    ready_.notify_all();
  }
}

}  // namespace torch_safetensors::staging
