// The index of a checkpoint: what is accepted keeps its promises.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string_view>

#include "format/shard_index.h"
#include "require.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::fuzz {
namespace {

void check(std::string_view json) {
  try {
    const format::ShardIndex index = format::parse_shard_index(json);
    require(std::ranges::is_sorted(index.shards(), {}, &format::Shard::file), "files are sorted");
    std::set<std::string_view> names;
    std::set<std::string_view> files;
    for (const format::Shard& shard : index.shards()) {
      require(files.insert(shard.file).second, "no file is there twice");
      require(!shard.file.empty() && shard.file.front() != '/' &&
                  ("/" + shard.file + "/").find("/../") == std::string::npos &&
                  shard.file.find('\0') == std::string::npos,
              "files lie in the folder of the index");
      require(!shard.names.empty() && std::ranges::is_sorted(shard.names), "names are sorted");
      for (const std::string& name : shard.names) {
        require(names.insert(name).second, "no name is there twice");
      }
    }
  } catch (const SafetensorError& error) {
    require(*error.what() != '\0', "errors have a text");
  }
}

}  // namespace
}  // namespace torch_safetensors::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  torch_safetensors::fuzz::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
