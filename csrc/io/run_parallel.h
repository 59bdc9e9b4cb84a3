#pragma once

#include <cstddef>
#include <functional>

namespace torch_safetensors::io {

/// As many threads as there are cores, up to 8: memory or disk are the limit soon, and a loader is rarely
/// alone on a large machine (one process per GPU).
size_t default_threads();

/// Calls `run_item` once with each number below `items`, on at most `threads` threads, one of them the
/// caller's. The others are started here and have ended when it returns: a pool would not survive fork. Where
/// the system gives fewer threads, fewer do the work. Throws the first exception of `run_item`, after which
/// no further item is begun.
void run_parallel(size_t items, size_t threads, const std::function<void(size_t)>& run_item);

}  // namespace torch_safetensors::io
