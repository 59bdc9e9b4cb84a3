#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <memory>
#include <optional>

#include "staging/block_ring.h"

namespace torch_safetensors::tensors {

/// A point on a lane that copies have still to reach.
class LaneFence : public staging::Fence {
 public:
  explicit LaneFence(const c10::Stream& stream);
  bool is_done() override { return event_.query(); }
  void wait() override { event_.synchronize(); }

  /// Has the stream wait; the calling thread does not.
  void block(const c10::Stream& stream) const { event_.block(stream); }

 private:
  c10::Event event_;
};

/// A stream of its own on which copies to and from one device run beside everything else, through torch's
/// device-generic interfaces alone. Copies of the CPU are done when they return. May be used by several
/// threads at once, each within a Scope.
class DeviceLane {
 public:
  /// Null where the backend has no streams or events; torch's own copies work there.
  static std::shared_ptr<DeviceLane> open(c10::Device device);

  /// While it lives, what the calling thread allocates and copies goes to the lane's stream and past autograd
  /// and every Python mode: bytes are moved, which nobody shall see.
  class Scope {
   public:
    explicit Scope(const DeviceLane& lane);

   private:
    at::AutoDispatchBelowADInplaceOrView below_autograd_;
    c10::impl::ExcludeDispatchKeyGuard no_python_{
        c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
    std::optional<c10::StreamGuard> stream_;
  };

  /// With its index.
  c10::Device device() const { return device_; }
  bool is_asynchronous() const { return stream_.has_value(); }

  /// From here on the lane's copies wait for what the calling thread's current stream was given so far:
  /// memory that was just allocated may still be in use there by its previous owner.
  void follow_current() const;

  /// What the calling thread's current stream is given from here on waits for the lane's copies so far.
  void precede_current() const;

  /// The same for the copies up to a fence, whose destination was allocated on the lane: `memory` is not to
  /// be used anew before the current stream is done with it. A null fence: nothing is to be waited for.
  void hand_over(const LaneFence* fence, const c10::DataPtr& memory) const;

  /// Within a Scope: enqueues a copy between 1-D uint8 tensors of one size.
  void copy(const at::Tensor& to, const at::Tensor& from) const;

  /// Behind the copies so far; null for the CPU.
  std::shared_ptr<LaneFence> mark() const;

  /// The same, telling the allocator of a block that the lane uses it. Waits for the copies if they cannot be
  /// marked, so that the block can be used in any case; throws then.
  std::shared_ptr<LaneFence> mark_use(const staging::BlockRing::Block& block) const;

 private:
  DeviceLane(c10::Device device, std::optional<c10::Stream> stream) : device_(device), stream_(stream) {}
  c10::Stream current() const;

  c10::Device device_;
  std::optional<c10::Stream> stream_;
};

/// The bytes [offset, offset + nbytes) of a contiguous tensor, as a 1-D uint8 tensor over the same memory.
/// Throws ValueError (c10) where that is not there (byte_range.h).
at::Tensor bytes_of(const at::Tensor& tensor, size_t offset, size_t nbytes);

}  // namespace torch_safetensors::tensors
