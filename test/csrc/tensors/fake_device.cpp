#include "tensors/fake_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <vector>

namespace torch_safetensors::fake {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr int kStreams = 8;

/// Guards everything here. Work runs under it, on the thread that waits.
std::recursive_mutex mutex;

struct Queue {
  std::deque<std::function<void()>> work;
  size_t done = 0;

  size_t end() const { return done + work.size(); }

  void run_to(size_t position) {
    while (done < position) {
      const auto next = std::move(work.front());
      work.pop_front();
      ++done;
      next();
    }
  }
};

std::array<Queue, kStreams> queues;
thread_local c10::StreamId current_stream = 0;
Counts total{};
size_t copies_to_failure = 0, allocations_to_failure = 0;

bool counts_down(size_t& left) { return left != 0 && --left == 0; }

struct Event {
  c10::StreamId stream = 0;
  size_t position = 0;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const override { return stream(current_stream); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    const std::lock_guard lock(mutex);
    static c10::StreamId last = 0;
    ++total.streams;
    last = last % (kStreams - 2) + 1;  // the highest one is the tests' own
    return stream(last);
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    return stream(std::exchange(current_stream, next.id()));
  }
  void record(void** event, const c10::Stream& on, c10::DeviceIndex, c10::EventFlag) const override {
    const std::lock_guard lock(mutex);
    if (*event == nullptr) {
      *event = new Event;
      ++total.events;
    }
    *static_cast<Event*>(*event) = {on.id(), queues[on.id()].end()};
  }
  void block(void* event, const c10::Stream& on) const override {
    const std::lock_guard lock(mutex);
    const Event at = *static_cast<Event*>(event);
    queues[on.id()].work.push_back([at] { queues[at.stream].run_to(at.position); });
  }
  bool queryEvent(void* event) const override {
    const std::lock_guard lock(mutex);
    const Event at = *static_cast<Event*>(event);
    return queues[at.stream].done >= at.position;
  }
  void synchronizeEvent(void* event) const override {
    const std::lock_guard lock(mutex);
    const Event at = *static_cast<Event*>(event);
    queues[at.stream].run_to(at.position);
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void synchronizeStream(const c10::Stream& on) const override {
    const std::lock_guard lock(mutex);
    queues[on.id()].run_to(queues[on.id()].end());
  }
  void recordDataPtrOnStream(const c10::DataPtr& memory, const c10::Stream& on) const override;

 private:
  static c10::Stream stream(c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, kDevice, id); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

/// Memory with the streams that use it beside the one it was allocated on.
struct Block {
  std::byte* data;
  size_t size;
  c10::StreamId stream;
  std::set<c10::StreamId> used_on = {};
};

/// As a caching allocator's, kept to the end of the program, so that no leak is seen in them.
auto& free_blocks = *new std::multimap<std::pair<c10::StreamId, size_t>, Block*>();

/// What a caching allocator does: memory is handed out again at once, to work on its own stream. That work
/// comes after what was enqueued there, and after what other streams that were told of were given.
void free_device(void* context) {
  const std::lock_guard lock(mutex);
  auto* const block = static_cast<Block*>(context);
  total.device_bytes -= block->size;
  Queue& queue = queues[block->stream];
  for (const c10::StreamId other : std::exchange(block->used_on, {})) {
    queue.work.push_back([other, end = queues[other].end()] { queues[other].run_to(end); });
  }
  queue.work.push_back([block] { std::memset(block->data, 0xDD, block->size); });
  free_blocks.emplace(std::pair(block->stream, block->size), block);
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    const std::lock_guard lock(mutex);
    TORCH_CHECK(!counts_down(allocations_to_failure), "fake: out of memory");
    if (size == 0) {
      return {nullptr, nullptr, &c10::detail::deleteNothing, kDevice};
    }
    Block* block = nullptr;
    if (const auto found = free_blocks.find({current_stream, size}); found != free_blocks.end()) {
      block = found->second;
      free_blocks.erase(found);
    } else {
      block = new Block{static_cast<std::byte*>(std::aligned_alloc(512, (size + 511) / 512 * 512)), size,
                        current_stream};
    }
    total.device_bytes += size;
    return {block->data, block, &free_device, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "fake: not there"); }
};
DeviceAllocator device_allocator;

void Guard::recordDataPtrOnStream(const c10::DataPtr& memory, const c10::Stream& on) const {
  const std::lock_guard lock(mutex);
  // As CUDA's: memory of others is passed over in silence.
  if (memory.get_deleter() == &free_device && static_cast<Block*>(memory.get_context())->stream != on.id()) {
    static_cast<Block*>(memory.get_context())->used_on.insert(on.id());
  }
}

/// Freed memory is scribbled over at once, or behind the work of the streams that were told of.
void free_host(void* context) {
  const std::lock_guard lock(mutex);
  auto* const block = static_cast<Block*>(context);
  total.host_bytes -= block->size;
  const auto give_back = [block] {
    std::memset(block->data, 0xEE, block->size);
    std::free(block->data);
    delete block;
  };
  if (block->used_on.empty()) {
    give_back();
    return;
  }
  Queue& queue = queues[*block->used_on.begin()];
  for (const c10::StreamId other : block->used_on) {
    queue.work.push_back([other, end = queues[other].end()] { queues[other].run_to(end); });
  }
  queue.work.push_back(give_back);
}

struct HostAllocator final : at::HostAllocator {
  c10::DataPtr allocate(size_t size) override {
    const std::lock_guard lock(mutex);
    auto* const block = new Block{static_cast<std::byte*>(std::malloc(size)), size, 0};
    std::memset(block->data, 0xCC, size);
    total.host_bytes += size;
    total.host_peak = std::max(total.host_peak, total.host_bytes);
    return {block->data, block, &free_host, c10::DeviceType::CPU};
  }
  bool record_event(void*, void* context, c10::Stream stream) override {
    const std::lock_guard lock(mutex);
    static_cast<Block*>(context)->used_on.insert(stream.id());
    return true;
  }
  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "fake: not there"); }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};
HostAllocator host_allocator;
const at::HostAllocatorRegistry<kType> registry(&host_allocator);

at::Tensor empty(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(sizes), &device_allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), &device_allocator,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype.value_or(at::kFloat));
}

/// Contiguous tensors of one dtype only; that is what the tests need.
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const std::lock_guard lock(mutex);
  TORCH_CHECK(!counts_down(copies_to_failure), "fake: the copy failed");
  TORCH_CHECK(from.is_contiguous() && to.is_contiguous() && from.scalar_type() == to.scalar_type(),
              "fake: cannot convert while copying");
  if (from.nbytes() == 0) {
    return to;
  }
  ++total.copies;
  void* const into = to.mutable_data_ptr();
  const void* const data = from.const_data_ptr();
  Queue& queue = queues[current_stream];
  queue.work.push_back([into, data, size = from.nbytes()] { std::memcpy(into, data, size); });
  if (!non_blocking) {
    queue.run_to(queue.end());
  }
  return to;
}

at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                      std::optional<c10::SymInt> offset) {
  at::Tensor result = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(sizes),
                                                      C10_AS_INTARRAYREF_SLOW(strides),
                                                      offset ? offset->expect_int() : self.storage_offset());
  return result;
}

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef sizes) {
  const auto inferred = at::infer_size_dv(C10_AS_INTARRAYREF_SLOW(sizes), self.numel());
  const auto strides = at::detail::computeStride(self.sizes(), self.strides(), inferred);
  return self.as_strided(inferred, *strides);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
}

Counts counts() {
  const std::lock_guard lock(mutex);
  return total;
}

void reset() {
  const std::lock_guard lock(mutex);
  copies_to_failure = allocations_to_failure = 0;
  for (Queue& queue : queues) {
    queue.run_to(queue.end());
  }
  total.host_peak = total.host_bytes;
  total.copies = total.streams = total.events = 0;
}

void enqueue(std::function<void()> work) {
  const std::lock_guard lock(mutex);
  queues[current_stream].work.push_back(std::move(work));
}

void fail_copy(size_t n) {
  const std::lock_guard lock(mutex);
  copies_to_failure = n;
}

void fail_allocation(size_t n) {
  const std::lock_guard lock(mutex);
  allocations_to_failure = n;
}

}  // namespace torch_safetensors::fake
