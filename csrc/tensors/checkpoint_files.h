#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "format/shard_index.h"
#include "io/file.h"

namespace torch_safetensors::tensors {

/// True for the name of an index, which ends in `.json`. It is told by its name, as everybody does: nothing
/// in a file of either kind says which it is.
bool is_index_name(std::string_view path);

/// Parses an index for `source`, so that its name stands in front of every error.
format::ShardIndex parse_index_of(const std::string& source, std::string_view json);

/// The same of an open file. Throws OsError, too.
format::ShardIndex read_index(const io::File& file);

/// `name` beside the file `path`.
std::string sibling_of(const std::string& path, std::string_view name);

/// Which of the names in a directory is its checkpoint: `model.safetensors` or, without it, its index, as
/// transformers looks for them; otherwise the one `*.safetensors` that is not part of a set, or the one
/// index. Empty if there is none, or more than one.
std::string choose_checkpoint(const std::vector<std::string>& names);

/// The path of the checkpoint in a directory. Throws OsError with EISDIR where there is none, or more than
/// one.
std::string checkpoint_in(const std::string& directory);

}  // namespace torch_safetensors::tensors
