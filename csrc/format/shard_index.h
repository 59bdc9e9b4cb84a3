#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace torch_safetensors::format {

/// The longest index that is read, in bytes: that of many files, each with as long a header as it may have.
/// torch_safetensors/_checkpoint_files.py refuses to write a longer one.
inline constexpr uint64_t kMaxIndexSize = 1'000'000'000;

/// A file of a checkpoint that is split into several, and the tensors it has.
struct Shard {
  /// Relative to the folder of the index; does not lead out of it.
  std::string file;
  /// Sorted by their bytes.
  std::vector<std::string> names;
};

/// The index of a checkpoint in several files, as Hugging Face libraries write it beside them:
/// `{"metadata": {...}, "weight_map": {"<name of a tensor>": "<name of a file>", ...}}`.
/// Only an index with a valid `weight_map` exists: every name stands in it once.
class ShardIndex {
 public:
  /// Sorted by the bytes of the file names, no file twice.
  std::span<const Shard> shards() const { return shards_; }

 private:
  friend ShardIndex parse_shard_index(std::string_view json);
  ShardIndex() = default;

  std::vector<Shard> shards_;
};

/// Parses an index; all of it but `weight_map` may be any JSON. Throws SafetensorError with what is wrong,
/// and the names.
ShardIndex parse_shard_index(std::string_view json);

}  // namespace torch_safetensors::format
