#include "staging/process_ring.h"

#include <unistd.h>

#include <atomic>
#include <map>

namespace torch_safetensors::staging {
namespace {

struct Rings {
  pid_t process = ::getpid();
  std::mutex mutex;
  std::map<int, std::weak_ptr<BlockRing>> by_kind;
};

/// Found without a lock: another thread may hold any lock while one forks, and the child has no such thread
/// to give it back. The parent's rings are left behind in the child, unused.
Rings& rings() {
  static std::atomic<Rings*> current{nullptr};
  Rings* found = current.load();
  while (found == nullptr || found->process != ::getpid()) {
    auto fresh = std::make_unique<Rings>();
    if (current.compare_exchange_strong(found, fresh.get())) {
      found = fresh.release();
    }
  }
  return *found;
}

}  // namespace

std::shared_ptr<BlockRing> process_ring(int kind, size_t capacity, const BlockRing::Allocate& allocate,
                                        BlockRing::Free free) {
  Rings& all = rings();
  const std::lock_guard lock(all.mutex);
  std::weak_ptr<BlockRing>& slot = all.by_kind[kind];
  std::shared_ptr<BlockRing> ring = slot.lock();
  if (!ring || ring->capacity() != capacity) {
    ring = BlockRing::make(capacity, allocate, free);
    slot = ring;
  }
  return ring;
}

}  // namespace torch_safetensors::staging
