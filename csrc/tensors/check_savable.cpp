#include "tensors/check_savable.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "format/text.h"
#include "tensors/byte_range.h"
#include "tensors/scalar_type.h"
#include "tensors/uninitialized.h"

namespace torch_safetensors::tensors {
namespace {

using format::in_quotes;

void check_layout(const NamedTensor& named) {
  const auto& [name, tensor] = named;
  TORCH_CHECK_VALUE(tensor.defined(), "tensor ", in_quotes(name), ": is undefined");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, "tensor ", in_quotes(name), ": is ", tensor.layout(),
                    ", and the format holds dense tensors; call .to_dense() first");
  TORCH_CHECK_NOT_IMPLEMENTED(!tensor.is_meta(), "tensor ", in_quotes(name),
                              ": is on the meta device and has no data; load or initialise it first");
  TORCH_CHECK_VALUE(
      has_memory(tensor), "tensor ", in_quotes(name),
      ": has no memory of its own (a FakeTensor, a nested tensor, or a subclass that wraps others); "
      "convert it to plain tensors first, or save DTensors with torch_safetensors.distributed.save_file or "
      "save_model, which gather nothing");
  check_initialized(named);
}

void check_contiguous(const NamedTensor& named) {
  const at::Tensor& tensor = named.tensor;
  // Resolving a lazy conjugate or negative view copies it, and only a dense one keeps its strides.
  const bool resolved_anew = (tensor.is_conj() || tensor.is_neg()) && !tensor.is_non_overlapping_and_dense();
  TORCH_CHECK_VALUE(tensor.is_contiguous() || resolved_anew, "tensor ", in_quotes(named.name),
                    ": is not contiguous (shape ", tensor.sizes(), ", strides ", tensor.strides(),
                    "); call .contiguous() first, or if it is a view of another tensor, save that one");
}

/// Where a tensor lies.
struct Area {
  c10::Device device;
  ByteRange range;
  const std::string* name;
};

bool operator<(const Area& a, const Area& b) {
  const auto place = [](const Area& area) {
    return std::tuple(area.device.type(), area.device.index(), area.range.begin, area.range.end);
  };
  const auto of_a = place(a);
  const auto of_b = place(b);
  return of_a < of_b || (of_a == of_b && *a.name < *b.name);
}

std::vector<Area> sorted_areas(std::span<const NamedTensor> tensors) {
  std::vector<Area> areas;
  areas.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    if (tensor.numel() > 0 && !tensor.is_conj() && !tensor.is_neg()) {
      areas.push_back({tensor.device(), byte_range(tensor), &name});
    }
  }
  // Tensors that were made one after the other often lie so.
  if (!std::is_sorted(areas.begin(), areas.end())) {
    std::sort(areas.begin(), areas.end());
  }
  return areas;
}

/// Written twice, memory would be doubled in the file and no longer shared when loaded.
void check_no_overlap(std::span<const NamedTensor> tensors) {
  const std::vector<Area> areas = sorted_areas(tensors);
  const Area* furthest = nullptr;
  for (const Area& area : areas) {
    if (furthest != nullptr && furthest->device == area.device) {
      TORCH_CHECK(area.range.begin >= furthest->range.end, "tensor ", in_quotes(*area.name),
                  ": Some tensors share memory: it overlaps tensor ", in_quotes(*furthest->name),
                  "; use save_model, which resolves shared storage, or save a .clone() of one");
    }
    if (furthest == nullptr || furthest->device != area.device || area.range.end > furthest->range.end) {
      furthest = &area;
    }
  }
}

}  // namespace

void check_dtype(const NamedTensor& named) {
  const auto& [name, tensor] = named;
  const c10::ScalarType dtype = tensor.scalar_type();
  TORCH_CHECK_VALUE(!tensor.is_quantized(), "tensor ", in_quotes(name), ": is quantized (", dtype,
                    "), which the format cannot hold; save .int_repr() with its scale and zero point, or "
                    ".dequantize() first");
  TORCH_CHECK_VALUE(dtype != at::kComplexDouble && dtype != at::kComplexHalf, "tensor ", in_quotes(name),
                    ": the format has no dtype for ", dtype, "; save torch.view_as_real(tensor) instead");
  TORCH_CHECK_VALUE(to_dtype(dtype), "tensor ", in_quotes(name), ": the format has no dtype for ", dtype,
                    "; convert it first");
}

void check_parts_savable(std::span<const NamedTensor> parts, Overlap overlap) {
  for (const NamedTensor& named : parts) {
    check_layout(named);
    check_dtype(named);
    check_memory(named);
  }
  if (overlap == Overlap::kRefused) {
    check_no_overlap(parts);
  }
}

void check_savable(std::span<const NamedTensor> tensors, Overlap overlap) {
  check_parts_savable(tensors, overlap);
  for (const NamedTensor& named : tensors) {
    check_contiguous(named);
  }
}

NamedTensor packed(NamedTensor named) {
  if (named.tensor.defined() && has_memory(named.tensor)) {
    check_memory(named);
    named.tensor = named.tensor.detach().contiguous();
  }
  check_savable({&named, 1}, Overlap::kWrittenTwice);
  return named;
}

}  // namespace torch_safetensors::tensors
