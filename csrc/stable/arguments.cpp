#include "stable/arguments.h"

#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <memory>
#include <type_traits>

namespace torch_safetensors::stable {
namespace {

using torch::stable::detail::to;

struct DeleteString {
  void operator()(StringOpaque* handle) const { torch_delete_string(handle); }
};

struct DeleteList {
  void operator()(StableListOpaque* handle) const { torch_delete_list(handle); }
};

std::string to_text(StableIValue value) {
  const std::unique_ptr<StringOpaque, DeleteString> handle(to<StringHandle>(value));
  size_t size = 0;
  const char* data = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_string_length(handle.get(), &size));
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle.get(), &data));
  return {data, size};
}

template <typename Convert>
auto to_list(StableIValue value, Convert convert) {
  const std::unique_ptr<StableListOpaque, DeleteList> handle(to<StableListHandle>(value));
  size_t size = 0;
  TORCH_ERROR_CODE_CHECK(torch_list_size(handle.get(), &size));
  std::vector<std::invoke_result_t<Convert, StableIValue>> list;
  list.reserve(size);
  for (size_t i = 0; i < size; ++i) {
    StableIValue item = 0;
    TORCH_ERROR_CODE_CHECK(torch_list_get_item(handle.get(), i, &item));
    list.push_back(convert(item));
  }
  return list;
}

}  // namespace

std::string Arguments::text() { return to_text(take<StableIValue>()); }

std::optional<std::string> Arguments::optional_text() {
  const auto value = take<std::optional<StableIValue>>();
  return value ? std::optional(to_text(*value)) : std::nullopt;
}

std::vector<std::string> Arguments::texts() { return to_list(take<StableIValue>(), to_text); }

std::optional<std::vector<std::string>> Arguments::optional_texts() {
  const auto value = take<std::optional<StableIValue>>();
  return value ? std::optional(to_list(*value, to_text)) : std::nullopt;
}

Tensor Arguments::tensor() { return take<Tensor>(); }

std::vector<Tensor> Arguments::tensors() { return to_list(take<StableIValue>(), to<Tensor>); }

Device Arguments::device() { return take<Device>(); }

bool Arguments::flag() { return take<bool>(); }

std::optional<int64_t> Arguments::optional_integer() { return take<std::optional<int64_t>>(); }

std::optional<std::vector<int64_t>> Arguments::optional_integers() {
  const auto value = take<std::optional<StableIValue>>();
  return value ? std::optional(to_list(*value, to<int64_t>)) : std::nullopt;
}

}  // namespace torch_safetensors::stable
