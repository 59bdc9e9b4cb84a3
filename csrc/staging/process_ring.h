#pragma once

#include <memory>

#include "staging/block_ring.h"

namespace torch_safetensors::staging {

/// The ring of this process for a kind of memory (`kind` is any number that names it): the one in use, if it
/// has that capacity, so that calls at the same time share it, otherwise a new one. A ring lasts as long as
/// somebody holds it, so that between loads there is no memory of it. A forked child begins without rings:
/// what its parent's threads held there never comes back.
std::shared_ptr<BlockRing> process_ring(int kind, size_t capacity, const BlockRing::Allocate& allocate,
                                        BlockRing::Free free);

}  // namespace torch_safetensors::staging
