#include <algorithm>

#include "modules/model.h"
#include "tensors/byte_range.h"
#include "tensors/save_plan.h"
#include "tensors/shared_storage.h"

namespace torch_safetensors::modules {

std::string save_model(Model model, const std::string& filename, const std::optional<Metadata>& metadata,
                       bool force_contiguous, bool fsync, bool checksum, int64_t alignment) {
  // All of them: of names that share memory, one that is there may stand for one that is not.
  tensors::check_all_memory(model.tensors);
  const tensors::DroppedNames dropped = tensors::find_dropped_names(model.tensors);
  std::optional<format::Metadata> pairs = tensors::to_format(metadata);
  if (!dropped.empty()) {
    format::MetadataBuilder all;
    for (const auto& [name, kept] : dropped) {
      all.add(name, kept);
    }
    // Behind ours, since the caller's own entry wins, as in the reference.
    if (pairs) {
      for (const auto& [key, value] : pairs->pairs()) {
        all.add(key, value);
      }
    }
    pairs = std::move(all).build();
  }
  std::erase_if(model.tensors, [&](const auto& named) { return dropped.contains(named.name); });
  if (force_contiguous) {
    for (auto& [name, tensor] : model.tensors) {
      if (tensors::has_memory(tensor)) {
        tensor = tensor.detach().contiguous();
      }
    }
  }
  return tensors::SavePlan(std::move(model.tensors), pairs, checksum, alignment,
                           tensors::Overlap::kWrittenTwice)
      .write_to(filename, fsync);
}

}  // namespace torch_safetensors::modules
