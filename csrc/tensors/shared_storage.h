#pragma once

#include <map>
#include <span>
#include <string>

#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// Names not to be written, each with the name that is written in its place.
using DroppedNames = std::map<std::string, std::string>;

/// Resolves shared storage for save_model. Where the reference can save the tensors of a storage, its choice
/// (REFERENCE 2.2): of tensors whose memory overlaps, one that covers the whole storage is kept, the one with
/// the smallest name. Elsewhere (slices, disjoint or overlapping views, transposed ties, expanded tensors of
/// as many elements as their storage) only names of identical tensors are dropped, and the smallest is kept.
/// So a dropped name of the kept one's dtype and shape is the same tensor. O(n log n).
DroppedNames find_dropped_names(std::span<const NamedTensor> tensors);

}  // namespace torch_safetensors::tensors
