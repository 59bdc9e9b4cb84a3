#include "format/dtype.h"

#include <array>

namespace torch_safetensors::format {
namespace {

struct Info {
  std::string_view name;
  uint64_t bits;
};

/// In the order of the enumerators.
constexpr std::array<Info, kDTypeCount> kInfos{{
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};

}  // namespace

std::string_view dtype_name(DType dtype) { return kInfos[static_cast<size_t>(dtype)].name; }

uint64_t dtype_bits(DType dtype) { return kInfos[static_cast<size_t>(dtype)].bits; }

std::optional<DType> find_dtype(std::string_view name) {
  for (size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name == name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

}  // namespace torch_safetensors::format
