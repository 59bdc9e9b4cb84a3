#pragma once

#include <torch/custom_class.h>

#include <string>
#include <tuple>
#include <vector>

#include "tensors/checkpoint.h"
#include "tensors/joined_names.h"
#include "tensors/load.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// `torch.classes.safetensors.SafeOpen`: a checkpoint that stays open and is read by name, for TorchScript
/// and for the Python `safe_open`. Pickled as its arguments and opened again.
class SafeOpen : public torch::CustomClassHolder {
 public:
  SafeOpen(std::string filename, c10::Device device, std::string backend);

  /// The constructor's arguments; the device as text, which is what `Device` pickles to elsewhere, too.
  using Arguments = std::tuple<std::string, std::string, std::string>;
  Arguments arguments() const;
  static c10::intrusive_ptr<SafeOpen> reopen(const Arguments& arguments);

  const Checkpoint& file() const { return file_; }

  /// In the order of the data.
  std::vector<std::string> keys() const;
  /// Throws what `Checkpoint::require_whole` does; other methods need only the files of the names that they
  /// are given. `metadata` needs all.
  void require_whole(bool strict_index) const { file_.require_whole(strict_index); }
  bool is_current() const { return file_.is_current(); }
  /// The numbers of io::FileIdentity.
  std::vector<int64_t> version() const;
  void verify() const { file_.verify(); }

  /// For the Python package: in the order of the data, and sorted by their bytes.
  JoinedNames joined_keys() const;
  JoinedNames joined_sorted_keys() const;
  int64_t size() const { return static_cast<int64_t>(file_.size()); }
  bool contains(const std::string& name) const;
  bool has_metadata() const;
  Metadata metadata() const;

  at::Tensor get_tensor(const std::string& name) const;
  std::vector<at::Tensor> get_tensors(const std::vector<std::string>& names) const;

  /// For the Python package: `get_tensors` on any device, with what `load_file` has for this.
  std::vector<at::Tensor> get_tensors_on(const std::vector<std::string>& names, c10::Device device,
                                         std::optional<int64_t> threads, std::optional<int64_t> ring_size,
                                         bool verify) const;

  /// Likewise: all tensors of open files, on the handle's device, as the public `load_file` reads them.
  std::vector<at::Tensor> read_all() const;

  /// On the meta device: dtype and shape as torch has them, no data.
  at::Tensor get_meta(const std::string& name) const;

  /// As the header has it: for F4 the last dimension counts elements, twice torch's.
  std::vector<int64_t> get_shape(const std::string& name) const;
  /// The format's name, e.g. "F32".
  std::string get_dtype(const std::string& name) const;
  /// The path of the file that has the tensor, as it stands in messages.
  std::string get_filename(const std::string& name) const { return file_.source_of(file_.entry(name)); }
  /// Which of the files record checksums, by their numbers.
  std::vector<int64_t> files_with_checksums() const;
  /// Throws SafetensorError unless the bytes of these files' tensors have them.
  void verify_recorded() const;
  /// [begin, end) of the data, relative to the end of the header of its file.
  std::vector<int64_t> get_data_offsets(const std::string& name) const;

  /// `tensor[..., start:end:step, ...]` in dimension `dim`, with Python's rules for bounds; reads no more
  /// than it needs.
  at::Tensor get_slice(const std::string& name, int64_t dim, std::optional<int64_t> start,
                       std::optional<int64_t> end, int64_t step) const;
  /// Any other part, by torch's sizes, strides and storage offset within the tensor.
  at::Tensor get_view(const std::string& name, std::vector<int64_t> sizes, std::vector<int64_t> strides,
                      int64_t offset) const;

  /// Has the system begin to read tensors into memory, for a `get_tensors` or `load_into` to come.
  void prefetch(const std::vector<std::string>& names) const { tensors::prefetch(file_, names); }

  /// Reads tensors into existing ones of the same dtypes and shapes, in parallel; or with `offsets`, the part
  /// of each that begins there and has the existing one's shape.
  void load_into(const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                 const std::optional<std::vector<std::vector<int64_t>>>& offsets) const;

 private:
  std::vector<const format::TensorEntry*> entries_of(const std::vector<std::string>& names) const;

  std::string filename_;
  c10::Device device_;
  std::string backend_;
  Checkpoint file_;
};

}  // namespace torch_safetensors::tensors
