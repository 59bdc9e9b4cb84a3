#include "tensors/python_checkpoint.h"

#include "tensors/checkpoint_files.h"
#include "tensors/filename.h"
#include "tensors/save_plan.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {

std::tuple<std::vector<std::string>, std::vector<std::string>> parse_index(const std::string& source,
                                                                           const at::Tensor& json) {
  const std::span<const std::byte> bytes = readable_bytes(json);
  const format::ShardIndex index =
      parse_index_of(source, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::vector<std::string> names;
  std::vector<std::string> files;
  for (const format::Shard& shard : index.shards()) {
    names.insert(names.end(), shard.names.begin(), shard.names.end());
    files.insert(files.end(), shard.names.size(), shard.file);
  }
  return {std::move(names), std::move(files)};
}

std::string write_file(const std::string& filename, const at::Tensor& data, bool fsync) {
  const std::string path = decode_filename(filename);
  io::AtomicFile file(path, fsync);
  const std::span<const std::byte> pieces[] = {readable_bytes(data)};
  file.write(pieces);
  return commit(file, path);
}

}  // namespace torch_safetensors::tensors
