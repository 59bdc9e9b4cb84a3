#pragma once

#include <atomic>
#include <functional>
#include <utility>

namespace torch_safetensors::io {

/// Makes system calls fail as they do on file systems that no test can mount. The test program defines the
/// functions itself (faults.cpp), in front of libc's: each fails with the number set here, and works for 0.
struct Faults {
  std::atomic<int> rename{0};
  std::atomic<int> fchmod{0};
  std::atomic<int> fchown{0};
  std::atomic<int> flock{0};
  std::atomic<int> ftruncate{0};
  std::atomic<int> fsync_file{0};
  std::atomic<int> fsync_directory{0};
  std::atomic<int> close{0};      ///< Of a descriptor open for writing; it is closed all the same.
  std::atomic<long> fstatfs{-1};  ///< And statfs: the magic number they report; 0: they fail; -1: they work.
  std::atomic<int> fsyncs{0};     ///< Counts the calls.
  std::atomic<int> set_flags{0};  ///< fcntl(F_SETFL).
  std::atomic<int> fallocate{0};
  std::atomic<int> pwrite{0};             ///< Fails from `pwrite_room` bytes on, and works for 0.
  std::atomic<long> pwrite_room{0};       ///< What the disk has left.
  std::atomic<int> pwrite_cuts{0};        ///< So many calls write an odd number of bytes only.
  std::atomic<int> pwrite_interrupts{0};  ///< So many calls fail with EINTR.
  std::atomic<int> direct_pwrite{0};      ///< Of a descriptor with O_DIRECT.
  std::atomic<int> direct_pwrites{0};     ///< Counts those past the page cache.
  std::atomic<int> madvise{0};
  std::atomic<int> madvises{0};  ///< Counts the calls.

  /// Called by each madvise: a system that takes its time.
  std::function<void()> before_madvise;

  /// Called by each preadv, on whatever thread.
  std::function<void()> before_preadv;

  /// Called once, by the next flock: what others do in between.
  std::function<void()> before_flock;

  void reset() {
    before_flock = before_madvise = before_preadv = nullptr;
    rename = fchmod = fchown = flock = ftruncate = fsync_file = fsync_directory = close = fsyncs = madvise =
        madvises = 0;
    set_flags = fallocate = pwrite = pwrite_cuts = pwrite_interrupts = direct_pwrite = direct_pwrites = 0;
    pwrite_room = 0;
    fstatfs = -1;
  }
};

inline Faults faults;

/// Ends all faults with the test.
struct FaultsGuard {
  ~FaultsGuard() { faults.reset(); }
};

}  // namespace torch_safetensors::io
