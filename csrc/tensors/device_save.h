#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tensors/device_lane.h"

namespace torch_safetensors::tensors {

/// Brings the values of tensors on devices to the CPU, in order and through blocks of the ring: while one is
/// written, the next ones are copied. Small tensors travel in one block.
class DeviceReader {
 public:
  using Emit = std::function<void(std::span<const std::byte>)>;

  /// `emit` is given the bytes piece by piece, each valid until it returns.
  explicit DeviceReader(Emit emit) : emit_(std::move(emit)) {}
  ~DeviceReader();
  DeviceReader(const DeviceReader&) = delete;
  DeviceReader& operator=(const DeviceReader&) = delete;

  /// A dense tensor, on any device, which is kept until it was read. A lazy conjugate or negative view is
  /// resolved on its device. Its bytes are emitted at some time before `flush` returns. Throws ValueError
  /// (c10) for a tensor whose memory is not there (byte_range.h).
  void add(const at::Tensor& tensor);

  /// Before a tensor is added whose values are still being made: what is added from here on is read behind
  /// the work that the calling thread's current stream was given so far. Otherwise that holds for the work
  /// before the first tensor of a device alone.
  void follow_current();

  /// Emits what was added and not emitted yet.
  void flush();

 private:
  /// A block and what is copied into it.
  struct Filling {
    staging::BlockRing::Block block;
    size_t nbytes = 0;
    std::shared_ptr<LaneFence> fence = nullptr;
    std::vector<at::Tensor> sources = {};  // read until the fence is passed
  };

  void use_lane_of(const at::Tensor& tensor);
  void copy_out(const at::Tensor& tensor);
  void copy_part(const at::Tensor& tensor, size_t offset, size_t nbytes);
  staging::BlockRing::Block next_block();
  void seal();
  void emit_oldest();

  Emit emit_;
  std::optional<c10::Device> device_;
  std::shared_ptr<DeviceLane> lane_;  // null: the backend has none
  std::shared_ptr<staging::BlockRing> ring_;
  std::optional<Filling> current_;
  std::deque<Filling> on_the_way_;
};

/// Whether the bytes of a dense tensor's values lie in memory of the CPU.
bool lies_here(const at::Tensor& tensor);

/// Reads dense tensors one after the other, and tells their bytes apart: what lies here as it lies, the
/// others with one DeviceReader, since each one makes streams and events.
class TensorReader {
 public:
  using Emit = std::function<void(size_t, std::span<const std::byte>)>;

  /// `emit` is given the number of a tensor, counted from 0, and its bytes piece by piece, each valid until
  /// it returns. Of a tensor without bytes nothing is emitted.
  explicit TensorReader(Emit emit);

  /// The next tensor, as for `DeviceReader::add`.
  void add(const at::Tensor& tensor);

  /// As for DeviceReader.
  void follow_current() { others_.follow_current(); }

  /// Emits what was added and not emitted yet.
  void flush() { others_.flush(); }

 private:
  /// A tensor, and how many of its bytes are still to come.
  struct Awaited {
    size_t index;
    size_t nbytes;
  };

  void tell_apart(std::span<const std::byte> bytes);

  Emit emit_;
  size_t count_ = 0;
  std::deque<Awaited> awaited_;
  DeviceReader others_;
};

/// Emits the bytes of one dense tensor: on the CPU as they lie there, those of other devices and of lazy
/// conjugate and negative views piece by piece.
void emit_bytes(const at::Tensor& tensor, const DeviceReader::Emit& emit);

}  // namespace torch_safetensors::tensors
