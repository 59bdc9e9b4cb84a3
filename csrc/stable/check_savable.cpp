#include "stable/check_savable.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <stdexcept>
#include <tuple>

#include "format/text.h"

namespace torch_safetensors::stable {
namespace {

using torch::headeronly::DeviceType;
using torch::headeronly::ScalarType;

[[noreturn]] void refuse(const std::string& name, const std::string& reason) {
  throw std::invalid_argument("tensor " + format::in_quotes(name) + ": " + reason);
}

/// The names of two tensors that are equal would be lost in silence.
void check_names(std::vector<std::string> names, size_t tensors) {
  if (names.size() != tensors) {
    throw std::invalid_argument("there are " + std::to_string(names.size()) + " names for " +
                                std::to_string(tensors) + " tensors");
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    refuse(*twice, "its name is given twice");
  }
}

/// Some, as the quantized ones, cannot even be asked for in this ABI.
void check_dtype(const std::string& name, const Tensor& tensor) {
  ScalarType dtype = ScalarType::Undefined;
  try {
    dtype = tensor.scalar_type();
  } catch (const std::runtime_error&) {
    refuse(name, "the format has no dtype for it; convert it first");
  }
  if (dtype == ScalarType::ComplexDouble || dtype == ScalarType::ComplexHalf) {
    refuse(name, "the format has no dtype for " + std::string(toString(dtype)) +
                     "; save torch.view_as_real(tensor) instead");
  }
  if (!shared::to_dtype(dtype)) {
    refuse(name, "the format has no dtype for " + std::string(toString(dtype)) + "; convert it first");
  }
}

void check_layout(const std::string& name, const Tensor& tensor) {
  if (!tensor.defined()) {
    refuse(name, "is undefined");
  }
  if (tensor.layout() != torch::headeronly::Layout::Strided) {
    refuse(name, "is not dense, and the format holds dense tensors; call .to_dense() first");
  }
  if (tensor.device().type() == DeviceType::Meta) {
    refuse(name, "is on the meta device and has no data; load or initialise it first");
  }
}

/// Where a tensor lies.
struct Area {
  std::tuple<DeviceType, int32_t> device;
  uintptr_t begin;
  uintptr_t end;
  const std::string* name;
};

/// Written twice, memory would be doubled in the file and no longer shared when loaded.
void check_no_overlap(std::vector<Area> areas) {
  std::ranges::sort(areas, {}, [](const Area& area) {
    return std::tuple(area.device, area.begin, area.end, std::string_view(*area.name));
  });
  const Area* furthest = nullptr;
  for (const Area& area : areas) {
    const bool is_near = furthest != nullptr && furthest->device == area.device;
    if (is_near && area.begin < furthest->end) {
      throw std::runtime_error("tensor " + format::in_quotes(*area.name) +
                               ": Some tensors share memory: it overlaps tensor " +
                               format::in_quotes(*furthest->name) + "; save a .clone() of one");
    }
    if (!is_near || area.end > furthest->end) {
      furthest = &area;
    }
  }
}

}  // namespace

void make_savable(const std::vector<std::string>& names, std::vector<Tensor>& tensors) {
  check_names(names, tensors.size());
  std::vector<Area> areas;
  for (size_t i = 0; i < tensors.size(); ++i) {
    Tensor& tensor = tensors[i];
    check_layout(names[i], tensor);
    check_dtype(names[i], tensor);
    check_memory(tensor, "tensor " + format::in_quotes(names[i]));
    tensor = resolved(tensor);
    if (!tensor.is_contiguous()) {
      refuse(
          names[i],
          "is not contiguous; call .contiguous() first, or if it is a view of another tensor, save that one");
    }
    if (tensor.numel() > 0) {
      const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
      const Device device = tensor.device();
      areas.push_back({{device.type(), device.index()},
                       begin,
                       begin + tensor.numel() * tensor.element_size(),
                       &names[i]});
    }
  }
  check_no_overlap(std::move(areas));
  for (Tensor& tensor : tensors) {
    if (!tensor.is_cpu()) {
      tensor = torch::stable::to(tensor, Device(DeviceType::CPU));
    }
  }
}

}  // namespace torch_safetensors::stable
