#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "format/text.h"
#include "modules/model.h"
#include "tensors/byte_range.h"
#include "tensors/identity.h"
#include "tensors/shared_storage.h"
#include "tensors/source.h"
#include "tensors/with_checkpoint.h"
#include "tensors/write_into.h"

namespace torch_safetensors::modules {
namespace {

using shared::Extent;
using tensors::Checkpoint;
using tensors::Identity;
using tensors::NamedTensor;
using tensors::Target;

/// What a file and a model have to do with each other, found out before anything is written.
struct Match {
  LoadModelResult names;
  std::vector<std::string> mismatches;
  std::vector<Target> targets;
};

/// Memory of a model that a file fills: sorted, disjoint ranges of bytes by storage. A tensor with gaps or
/// without elements fills no range, but itself under its other names. Not of addresses: memory that is
/// replaced need not be there.
class FilledMemory {
 public:
  explicit FilledMemory(std::span<const Target> targets) {
    for (const Target& target : targets) {
      filled_.emplace(target.out);
      const std::optional<Extent> extent = tensors::storage_extent(target.out);
      if (extent && target.out.is_non_overlapping_and_dense()) {
        ranges_[tensors::storage_key(target.out)].push_back(*extent);
      }
    }
    for (auto& [storage, ranges] : ranges_) {
      merge(ranges);
    }
  }

  /// True if the file fills all of the tensor's memory under other names.
  bool covers(const at::Tensor& tensor) const {
    return filled_.contains(Identity(tensor)) || covers_range(tensor);
  }

 private:
  bool covers_range(const at::Tensor& tensor) const {
    const auto found = ranges_.find(tensors::storage_key(tensor));
    const std::optional<Extent> range = tensors::storage_extent(tensor);
    if (found == ranges_.end() || !range || range->begin == range->end) {
      return false;
    }
    // The last one that begins before it, or where it does.
    const auto after = std::upper_bound(found->second.begin(), found->second.end(), range->begin,
                                        [](uint64_t begin, auto& filled) { return begin < filled.begin; });
    return after != found->second.begin() && range->end <= std::prev(after)->end;
  }

  static void merge(std::vector<Extent>& ranges) {
    std::sort(ranges.begin(), ranges.end(), [](auto& a, auto& b) { return a.begin < b.begin; });
    std::vector<Extent> merged;
    for (const Extent& range : ranges) {
      if (merged.empty() || range.begin > merged.back().end) {
        merged.push_back(range);
      } else {
        merged.back().end = std::max(merged.back().end, range.end);
      }
    }
    ranges = std::move(merged);
  }

  std::set<Identity> filled_;
  std::map<const void*, std::vector<Extent>> ranges_;
};

bool same_bytes(const Checkpoint& file, const format::TensorEntry& a, const format::TensorEntry& b) {
  if (a.dtype != b.dtype || a.nbytes() != b.nbytes()) {
    return false;
  }
  const at::Tensor left = file.read(a, at::kCPU);
  const at::Tensor right = file.read(b, at::kCPU);
  return a.nbytes() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), a.nbytes()) == 0;
}

/// Of targets that are one tensor under several names, keeps the one with the smallest name. The others hold
/// the same bytes, or loading would silently lose what they hold: then they are unexpected.
void resolve_ties(const Checkpoint& file, Match& match) {
  std::vector<std::tuple<Identity, std::string_view, const Target*>> sorted;
  sorted.reserve(match.targets.size());
  for (const Target& target : match.targets) {
    sorted.emplace_back(target.out, target.entry->name, &target);
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<Target> kept;
  kept.reserve(sorted.size());
  for (size_t first = 0, i = 0; i < sorted.size(); ++i) {
    const Target& target = *std::get<const Target*>(sorted[i]);
    if (i == 0 || std::get<Identity>(sorted[i]) != std::get<Identity>(sorted[first])) {
      first = i;
      kept.push_back(target);
    } else if (!same_bytes(file, *kept.back().entry, *target.entry)) {
      match.names.unexpected.emplace_back(target.entry->name);
    }
  }
  // Neighbours in the file are read together; where views overlap, the later one in the file wins.
  std::sort(kept.begin(), kept.end(),
            [&](const Target& a, const Target& b) { return file.is_before(*a.entry, *b.entry); });
  match.targets = std::move(kept);
}

/// As in `load_state_dict`: files from before scalars existed hold them as one element.
bool fits(at::IntArrayRef from, at::IntArrayRef into) {
  return from == into || (into.empty() && from == at::IntArrayRef{1});
}

void add_target(const Checkpoint& file, const NamedTensor& named, const format::TensorEntry& entry,
                Match& match) {
  const tensors::TensorType type = tensors::tensor_type(file.source_of(entry), entry);
  if (fits(type.sizes, named.tensor.sizes())) {
    match.targets.push_back({&entry, named.tensor});
    return;
  }
  match.mismatches.push_back(c10::str("size mismatch for ", named.name, ": the file holds ",
                                      at::IntArrayRef(type.sizes), " but the model has ",
                                      named.tensor.sizes()));
}

void find_missing(const std::vector<const NamedTensor*>& absent,
                  const std::unordered_set<std::string>& may_be_missing, Match& match) {
  if (absent.empty()) {
    return;
  }
  const FilledMemory filled(match.targets);
  std::vector<NamedTensor> missing;
  for (const NamedTensor* named : absent) {
    if (!may_be_missing.contains(named->name) && !filled.covers(named->tensor)) {
      missing.push_back(*named);
    }
  }
  // Of several names for one tensor, none of which is there, the one that save_model would write is missing.
  const tensors::DroppedNames dropped = tensors::find_dropped_names(missing);
  std::sort(missing.begin(), missing.end(), [](auto& a, auto& b) { return a.name < b.name; });
  std::set<Identity> on_meta;  // which is not saved, and of which nothing is dropped
  for (const NamedTensor& named : missing) {
    const bool is_tie = named.tensor.is_meta() && !on_meta.emplace(named.tensor).second;
    if (!is_tie && !dropped.contains(named.name)) {
      match.names.missing.push_back(named.name);
    }
  }
}

Match match_names(const Model& model, const Checkpoint& file,
                  const std::unordered_set<std::string>& may_be_missing) {
  Match match;
  std::unordered_set<std::string_view> known;
  std::vector<const NamedTensor*> absent;
  for (const NamedTensor& named : model.tensors) {
    TORCH_CHECK_VALUE(
        tensors::has_memory(named.tensor) || named.tensor.is_meta(), file.source(), ": tensor ",
        format::in_quotes(named.name),
        ": has no memory of its own to load into (it is sparse, or a subclass that wraps others)");
    known.insert(named.name);
    if (const format::TensorEntry* entry = file.find(named.name)) {
      add_target(file, named, *entry, match);
    } else {
      absent.push_back(&named);
    }
  }
  for (const std::string_view name : file.names()) {
    if (!known.contains(name)) {
      match.names.unexpected.emplace_back(name);
    }
  }
  find_missing(absent, may_be_missing, match);
  resolve_ties(file, match);
  std::sort(match.names.unexpected.begin(), match.names.unexpected.end());
  return match;
}

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "\"" : ", \"") + format::printable(name) + '"';
  }
  return text;
}

/// The words are those of torch's `load_state_dict`, which people search for.
void check_match(const Model& model, const Checkpoint& file, const Match& match, bool strict) {
  std::string problems;
  if (strict && !match.names.missing.empty()) {
    problems += "\n    Missing key(s) in state_dict: " + list(match.names.missing);
  }
  if (strict && !match.names.unexpected.empty()) {
    problems += "\n    Unexpected key(s) in state_dict: " + list(match.names.unexpected);
  }
  for (const std::string& mismatch : match.mismatches) {
    problems += "\n    " + mismatch;
  }
  if (!problems.empty()) {
    tensors::throw_malformed(file.source(),
                             "Error(s) in loading state_dict for " + model.class_name + ":" + problems);
  }
}

}  // namespace

LoadModelResult check_model(const Model& model, const Checkpoint& file, bool strict,
                            const std::unordered_set<std::string>& may_be_missing) {
  Match match = match_names(model, file, may_be_missing);
  check_match(model, file, match, strict);
  return std::move(match.names);
}

FilledModel load_model(const Model& model, const Checkpoint& file, bool strict,
                       const std::unordered_set<std::string>& may_be_missing, bool verify) {
  const at::NoGradGuard no_grad;
  Match match = match_names(model, file, may_be_missing);
  check_match(model, file, match, strict);
  for (const Target& target : match.targets) {
    tensors::check_writable(
        target.out, tensors::tensor_type(file.source_of(*target.entry), *target.entry).dtype,
        file.source_of(*target.entry) + ": tensor " + format::in_quotes(target.entry->name));
  }
  if (verify) {
    file.verify();
  }
  tensors::Overflows overflows;
  tensors::write_into(file, match.targets, &overflows);
  return {std::move(match.names), overflows.warning(file.source())};
}

FilledModel load_model(const Model& model, const std::string& filename, bool strict, std::string_view backend,
                       bool verify, bool strict_index) {
  return tensors::with_checkpoint(filename, backend, Checkpoint::Opening::all(strict_index),
                                  [&](auto file) { return load_model(model, *file, strict, {}, verify); });
}

}  // namespace torch_safetensors::modules
