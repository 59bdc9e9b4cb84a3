#include "tensors/safe_open.h"

#include <ATen/WrapDimUtils.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <algorithm>

#include "format/checksum.h"
#include "format/text.h"
#include "tensors/load.h"
#include "tensors/source.h"
#include "tensors/write_into.h"

namespace torch_safetensors::tensors {
namespace {

/// Methods of classes bypass the dispatcher, so no mode ever sees the call; what they call inside would reach
/// the mode, and a FakeTensor would come back where memory is expected.
class OutsideOfModes {
 public:
  OutsideOfModes() {
    using c10::impl::TorchDispatchModeTLS;
    TORCH_CHECK(
        !TorchDispatchModeTLS::get_mode(c10::impl::TorchDispatchModeKey::FAKE),
        "SafeOpen cannot read under FakeTensorMode; use torch.ops.safetensors.load_tensor(s), which give "
        "fake tensors");
  }

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
};

int64_t clamp_bound(int64_t bound, int64_t size) {
  return std::clamp<int64_t>(bound < 0 ? bound + size : bound, 0, size);
}

/// The view must lie inside the tensor: it comes from callers, not from a validated header.
void check_view(const StridedView& view, const TensorType& type, const std::string& label) {
  TORCH_CHECK_VALUE(view.sizes.size() == view.strides.size() && view.offset >= 0, label,
                    ": a view needs as many strides as sizes, and an offset that is not negative");
  // A view without elements may lie anywhere: torch's are at the tensor's end, or past it.
  if (std::find(view.sizes.begin(), view.sizes.end(), 0) != view.sizes.end()) {
    return;
  }
  const auto count = static_cast<uint64_t>(type.nbytes / c10::elementSize(type.dtype));
  uint64_t last = view.offset;
  int64_t nbytes = static_cast<int64_t>(c10::elementSize(type.dtype));
  for (size_t dim = 0; dim < view.sizes.size(); ++dim) {
    TORCH_CHECK_VALUE(view.sizes[dim] >= 0 && view.strides[dim] >= 0, label,
                      ": sizes and strides of a view are not negative");
    const auto step = static_cast<uint64_t>(view.strides[dim]);
    const auto steps = static_cast<uint64_t>(view.sizes[dim] - 1);
    TORCH_CHECK_VALUE(steps == 0 || step <= count / steps, label, ": the view ends outside of its ", count,
                      " elements");
    last += step * steps;
    TORCH_CHECK_VALUE(last < count, label, ": the view ends at element ", last, " of ", count);
    // A stride of 0 makes any size lie inside.
    TORCH_CHECK_VALUE(!__builtin_mul_overflow(nbytes, view.sizes[dim], &nbytes), label,
                      ": the view has more than 2^63 - 1 bytes");
  }
  TORCH_CHECK_VALUE(last < count, label, ": the view ends at element ", last, " of ", count);
}

}  // namespace

SafeOpen::SafeOpen(std::string filename, c10::Device device, std::string backend)
    : filename_(std::move(filename)),
      device_(device),
      backend_(std::move(backend)),
      file_(filename_, backend_, Checkpoint::Opening::present()) {}

SafeOpen::Arguments SafeOpen::arguments() const { return {filename_, device_.str(), backend_}; }

c10::intrusive_ptr<SafeOpen> SafeOpen::reopen(const Arguments& arguments) {
  const auto& [filename, device, backend] = arguments;
  return c10::make_intrusive<SafeOpen>(filename, c10::Device(device), backend);
}

std::vector<std::string> SafeOpen::keys() const {
  const std::vector<std::string_view> names = file_.names();
  return {names.begin(), names.end()};
}

JoinedNames SafeOpen::joined_keys() const { return join_names(file_.names()); }

JoinedNames SafeOpen::joined_sorted_keys() const { return join_names(file_.sorted_names()); }

bool SafeOpen::contains(const std::string& name) const { return file_.contains(name); }

bool SafeOpen::has_metadata() const { return file_.has_metadata(); }

Metadata SafeOpen::metadata() const { return file_.metadata(); }

at::Tensor SafeOpen::get_tensor(const std::string& name) const {
  const OutsideOfModes guard;
  return file_.read(file_.entry(name), device_);
}

std::vector<at::Tensor> SafeOpen::get_tensors(const std::vector<std::string>& names) const {
  const OutsideOfModes guard;
  return file_.read(entries_of(names), device_);
}

std::vector<at::Tensor> SafeOpen::get_tensors_on(const std::vector<std::string>& names, c10::Device device,
                                                 std::optional<int64_t> threads,
                                                 std::optional<int64_t> ring_size, bool verify) const {
  const OutsideOfModes guard;
  return file_.read(entries_of(names), device, {threads, ring_size}, verify);
}

std::vector<const format::TensorEntry*> SafeOpen::entries_of(const std::vector<std::string>& names) const {
  std::vector<const format::TensorEntry*> entries;
  entries.reserve(names.size());
  for (const std::string& name : names) {
    entries.push_back(&file_.entry(name));
  }
  return entries;
}

std::vector<int64_t> SafeOpen::version() const {
  const auto& [device, inode, size, modified, changed] = file_.version();
  return {static_cast<int64_t>(device), static_cast<int64_t>(inode), static_cast<int64_t>(size), modified,
          changed};
}

std::vector<at::Tensor> SafeOpen::read_all() const {
  const OutsideOfModes guard;
  return file_.read_all(device_);
}

at::Tensor SafeOpen::get_meta(const std::string& name) const {
  const OutsideOfModes guard;
  return file_.read(file_.entry(name), c10::kMeta);
}

std::vector<int64_t> SafeOpen::get_shape(const std::string& name) const {
  const auto shape = file_.entry(name).shape;
  return {shape.begin(), shape.end()};
}

std::string SafeOpen::get_dtype(const std::string& name) const {
  return std::string(format::dtype_name(file_.entry(name).dtype));
}

std::vector<int64_t> SafeOpen::files_with_checksums() const {
  std::vector<int64_t> numbers;
  const auto files = file_.files();
  for (size_t i = 0; i < files.size(); ++i) {
    if (format::records_checksums(files[i]->header())) {
      numbers.push_back(static_cast<int64_t>(i));
    }
  }
  return numbers;
}

void SafeOpen::verify_recorded() const {
  for (const int64_t number : files_with_checksums()) {
    file_.files()[number]->verify();
  }
}

std::vector<int64_t> SafeOpen::get_data_offsets(const std::string& name) const {
  const format::TensorEntry& entry = file_.entry(name);
  return {static_cast<int64_t>(entry.begin), static_cast<int64_t>(entry.end)};
}

at::Tensor SafeOpen::get_slice(const std::string& name, int64_t dim, std::optional<int64_t> start,
                               std::optional<int64_t> end, int64_t step) const {
  const OutsideOfModes guard;
  const format::TensorEntry& entry = file_.entry(name);
  StridedView view = dense_view(tensor_type(file_.source_of(entry), entry).sizes);
  const std::string label = file_.source_of(entry) + ": tensor " + format::in_quotes(name);
  TORCH_CHECK_VALUE(!view.sizes.empty(), label, ": has no dimension to slice");
  TORCH_CHECK_VALUE(step > 0, label, ": slice step must be positive, not ", step);
  dim = at::maybe_wrap_dim(dim, static_cast<int64_t>(view.sizes.size()));
  const int64_t size = view.sizes[dim];
  const int64_t first = clamp_bound(start.value_or(0), size);
  const int64_t last = clamp_bound(end.value_or(size), size);
  view.sizes[dim] = last > first ? (last - first - 1) / step + 1 : 0;
  view.offset = first * view.strides[dim];
  view.strides[dim] = std::min(step, size) * view.strides[dim];
  return file_.file_of(entry).read_view(entry, view, device_);
}

at::Tensor SafeOpen::get_view(const std::string& name, std::vector<int64_t> sizes,
                              std::vector<int64_t> strides, int64_t offset) const {
  const OutsideOfModes guard;
  const format::TensorEntry& entry = file_.entry(name);
  const StridedView view{std::move(sizes), std::move(strides), offset};
  check_view(view, tensor_type(file_.source_of(entry), entry),
             file_.source_of(entry) + ": tensor " + format::in_quotes(name));
  return file_.file_of(entry).read_view(entry, view, device_);
}

void SafeOpen::load_into(const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                         const std::optional<std::vector<std::vector<int64_t>>>& offsets) const {
  const OutsideOfModes guard;
  for (const at::Tensor& tensor : tensors) {
    // The guard hides from torch that such a tensor has no memory, and a copy into it would write to nowhere.
    TORCH_CHECK_VALUE(
        !tensor.key_set().has(c10::DispatchKey::Python), file_.source(),
        ": SafeOpen loads into plain tensors only, not into a FakeTensor or a subclass that runs code of "
        "its own; use torch.ops.safetensors.load_into");
  }
  tensors::load_into(file_, names, tensors, offsets);
}

}  // namespace torch_safetensors::tensors
