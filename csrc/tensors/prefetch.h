#pragma once

#include <torch/custom_class.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tensors/safe_open.h"

namespace torch_safetensors::tensors {

class BackgroundLoad;

/// `torch.classes.safetensors._Prefetch`: tensors of an open file that load in the background, for the Python
/// package. Each is handed out once. It keeps the file open and has threads of its own, which end with
/// `close` or with the object. In a forked child, where those threads are not, every method but `close`
/// refuses.
class Prefetch : public torch::CustomClassHolder {
 public:
  /// Loads the rows [begins[i], ends[i]) of the first dimension of the tensors named, all of it where both
  /// are -1. `threads` read: by default as many as TORCH_SAFETENSORS_THREADS says, or 8. `buffer_size`: bytes
  /// that may be ready or on the way and not handed out; 1 GiB by default.
  /// Throws ValueError (c10) for rows that are not there, and as SafeOpen for names and dtypes.
  Prefetch(c10::intrusive_ptr<SafeOpen> file, const std::vector<std::string>& names,
           const std::vector<int64_t>& begins, const std::vector<int64_t>& ends, c10::Device device,
           std::optional<int64_t> threads, std::optional<int64_t> buffer_size,
           std::optional<int64_t> ring_size);
  ~Prefetch() override;

  /// In the order of their data in the file.
  std::vector<std::string> names() const;

  /// The tensor, ready for the current stream, or nothing if it has not come within so many milliseconds: a
  /// caller with a Python interpreter looks for signals in between. Throws SafetensorError if it was handed
  /// out before, is not among the names, or the loader was closed, and whatever made the load fail.
  std::optional<at::Tensor> take(const std::string& name, int64_t milliseconds);

  /// Any tensor that is ready, first come, first served, with its name. No tensor: not within that time; no
  /// name either: all were handed out.
  std::tuple<std::optional<std::string>, std::optional<at::Tensor>> take_any(int64_t milliseconds);

  /// Stops the threads and drops what was not handed out; those who wait are told. Once is enough, more does
  /// no harm.
  void close();

 private:
  [[noreturn]] void throw_closed() const;
  BackgroundLoad& load() const;
  at::Tensor hand_out(size_t item);

  c10::intrusive_ptr<SafeOpen> file_;
  std::shared_ptr<BackgroundLoad> load_;  // never null
};

}  // namespace torch_safetensors::tensors
