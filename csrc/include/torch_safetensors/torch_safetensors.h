#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "torch_safetensors/errors.h"

namespace torch::jit {
struct Module;
}
namespace torch::nn {
class Module;
}

/// Load and save tensors in the safetensors format (https://github.com/huggingface/safetensors).
///
/// Errors of every function: OsError for what the operating system refuses; SafetensorError for a malformed
/// file, a name that it does not hold, or a model that it does not fit; c10::ValueError for a wrong argument
/// or a tensor that cannot be saved. They name the tensor and the numbers, and the file where it is at fault.
///
/// A storage can be resized or freed while tensors still refer to it, as FSDP and offloading do. Every
/// function compares a tensor's offset, shape and strides with its storage before it reads or writes the
/// tensor's memory, and throws c10::ValueError if the storage is too small or has no data.
///
/// `filename` is a path in any encoding, without a NUL. What is read from may be a checkpoint in several
/// files, too: the path of its index, which ends in `.json`, or of the directory that holds
/// `model.safetensors`, its index or one other checkpoint. `backend` is "mmap" (lazy, private copy-on-write
/// pages), "pread" (read at once, in parallel, immune to later changes of the file) or "auto" (mmap on local
/// file systems, pread on network and FUSE ones).
///
/// Of several files, all that one call reads is of one save, also while another process replaces them; if
/// that happens again and again, the call throws OsError with ESTALE. What loads by name needs only the files
/// of those names. What loads everything throws SafetensorError with all differences if index and files
/// differ; with `strict_index` false it takes only the tensors that the index assigns to each file, and
/// throws if one of them is not there.
///
/// `checksum` records a checksum (XXH3, 128 bits) of each tensor in the metadata, under
/// `torch_safetensors.xxh3_128`; `verify` compares them before it returns, and throws SafetensorError that
/// names the tensor that is damaged, or says that the file has none.
///
/// `alignment`, in bytes, is 0 or a power of two from 8 to 4096: each tensor begins in the file, and mapped
/// in memory, at a multiple of the largest power of two, at most that, which divides its size in bytes. For
/// it the header is padded, and tensors whose sizes have the higher powers come first. 0 is the reference's
/// layout.
namespace torch_safetensors {

using TensorDict = c10::Dict<std::string, at::Tensor>;
using Metadata = c10::Dict<std::string, std::string>;

/// Version of the library, e.g. "0.1.0".
TORCH_SAFETENSORS_API std::string version();

/// All tensors of a file, in the order of their data. Each has a storage of its own of exactly its bytes,
/// writable and not resizable; mapped tensors keep the mapping alive and never change the file. The meta
/// device reads the header alone.
TORCH_SAFETENSORS_API TensorDict load_file(const std::string& filename, at::Device device = at::kCPU,
                                           std::string_view backend = "auto", bool verify = false,
                                           bool strict_index = true);

/// The same from memory: `data` is a 1-D uint8 tensor with the bytes of a file. With `copy` false the tensors
/// alias `data`, on the CPU, and keep it alive; its storage cannot be resized afterwards.
TORCH_SAFETENSORS_API TensorDict load(const at::Tensor& data, at::Device device = at::kCPU, bool copy = true,
                                      bool verify = false);

/// One tensor of a file.
TORCH_SAFETENSORS_API at::Tensor load_tensor(const std::string& filename, std::string_view name,
                                             at::Device device = at::kCPU, std::string_view backend = "auto",
                                             bool verify = false);

/// Some tensors of a file, in the order of `names`.
TORCH_SAFETENSORS_API std::vector<at::Tensor> load_tensors(const std::string& filename,
                                                           const std::vector<std::string>& names,
                                                           at::Device device = at::kCPU,
                                                           std::string_view backend = "auto",
                                                           bool verify = false);

/// Reads a tensor of a file into `out`, which has its shape and dtype. As `out.copy_` would: the same checks,
/// and autograd sees the write. With `offsets`, one for each dimension, it reads the part that begins there
/// and has the shape of `out`, and no more of the file than that, bar gaps shorter than a page.
TORCH_SAFETENSORS_API void load_into(const std::string& filename, std::string_view name,
                                     const at::Tensor& out, at::OptionalIntArrayRef offsets = std::nullopt);

/// Has the system begin to read tensors of a file into memory, and returns: a `load_tensors` or `load_into`
/// of them that comes after other work need not wait for the disk. What the system reads it may also drop
/// again.
TORCH_SAFETENSORS_API void prefetch(const std::string& filename, const std::vector<std::string>& names);

/// Writes `tensors` (dense, contiguous, on any device) to a file, byte for byte as the reference does if
/// `alignment` is 0; the file appears under its name only when it is whole. `fsync` also makes it durable.
/// Nothing is written if an argument is wrong. Throws OsError, and an existing file is as it was; except with
/// `fsync`, where the message may say that the new file is in place, but may not survive a power failure.
TORCH_SAFETENSORS_API void save_file(const TensorDict& tensors, const std::string& filename,
                                     const std::optional<Metadata>& metadata = std::nullopt,
                                     bool fsync = false, bool checksum = false, int64_t alignment = 0);

/// The same bytes as a 1-D uint8 tensor, in the reference's layout.
TORCH_SAFETENSORS_API at::Tensor save(const TensorDict& tensors,
                                      const std::optional<Metadata>& metadata = std::nullopt,
                                      bool checksum = false);

/// The names of a file's tensors, in the order of their data.
TORCH_SAFETENSORS_API std::vector<std::string> keys(const std::string& filename, bool strict_index = true);

/// The `__metadata__` of a file, sorted by key; empty where it has none.
TORCH_SAFETENSORS_API Metadata metadata(const std::string& filename);

/// While it lives, loads and saves that the thread which made it calls tell `report` how many bytes of how
/// many are done: 0 first, all last, in between from time to time and always on that thread. What it throws
/// stops them: a save leaves the old file as it was, a model may be loaded in part. Of mapped tensors nothing
/// is read, so those are done at once. Guards nest; the innermost counts. To be destroyed on its thread.
class TORCH_SAFETENSORS_API ProgressGuard {
 public:
  using Report = std::function<void(uint64_t done, uint64_t total)>;
  explicit ProgressGuard(Report report);
  ~ProgressGuard();
  ProgressGuard(const ProgressGuard&) = delete;
  ProgressGuard& operator=(const ProgressGuard&) = delete;

 private:
  Report report_;
  const Report* outer_;
};

/// Names that `load_model` did not find in the file, and names of the file that the model does not have; both
/// sorted.
struct LoadModelResult {
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
};

/// Reads a file into the parameters and buffers of a model, in place. Names and shapes are checked before
/// anything is written: a model that is refused (SafetensorError) is unchanged. `strict` false forgives
/// names, never shapes. Other dtypes are converted as `copy_` does; finite values that become infinite cause
/// one warning (TORCH_WARN). Tensors that share storage need one of
/// their names in the file.
TORCH_SAFETENSORS_API LoadModelResult load_model(torch::jit::Module& model, const std::string& filename,
                                                 bool strict = true, std::string_view backend = "auto",
                                                 bool verify = false, bool strict_index = true);
TORCH_SAFETENSORS_API LoadModelResult load_model(torch::nn::Module& model, const std::string& filename,
                                                 bool strict = true, std::string_view backend = "auto",
                                                 bool verify = false, bool strict_index = true);

/// Writes the parameters and buffers of a model. Names of one tensor are written once, with `dropped -> kept`
/// in the metadata; what else shares storage is written in full under each name.
TORCH_SAFETENSORS_API void save_model(const torch::jit::Module& model, const std::string& filename,
                                      const std::optional<Metadata>& metadata = std::nullopt,
                                      bool force_contiguous = true, bool fsync = false, bool checksum = false,
                                      int64_t alignment = 0);
TORCH_SAFETENSORS_API void save_model(const torch::nn::Module& model, const std::string& filename,
                                      const std::optional<Metadata>& metadata = std::nullopt,
                                      bool force_contiguous = true, bool fsync = false, bool checksum = false,
                                      int64_t alignment = 0);

}  // namespace torch_safetensors
