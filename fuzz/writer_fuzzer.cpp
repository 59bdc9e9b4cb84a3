// The writer: any names, shapes and metadata are refused or written so that they are read as they were.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "header_checks.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::fuzz {
namespace {

struct Tensor {
  std::string name;
  format::DType dtype;
  std::vector<int64_t> shape;
};

std::vector<Tensor> any_tensors(FuzzedDataProvider& input) {
  std::vector<Tensor> tensors(input.ConsumeIntegralInRange<size_t>(0, 8));
  for (Tensor& tensor : tensors) {
    tensor.dtype =
        static_cast<format::DType>(input.ConsumeIntegralInRange<size_t>(0, format::kDTypeCount - 1));
    tensor.shape.resize(input.ConsumeIntegralInRange<size_t>(0, 5));
    for (int64_t& dim : tensor.shape) {
      const bool is_small = input.ConsumeBool();
      dim = input.ConsumeIntegralInRange<int64_t>(0, is_small ? 8 : INT64_MAX);
    }
    tensor.name = input.ConsumeRandomLengthString(40);
  }
  // The caller's part of the contract.
  std::ranges::stable_sort(tensors, {}, &Tensor::name);
  const auto twins = std::ranges::unique(tensors, {}, &Tensor::name);
  tensors.erase(twins.begin(), twins.end());
  return tensors;
}

/// Each tensor begins at a multiple of every power of two, up to `alignment`, that divides its size.
bool is_aligned(const format::Header& header, uint64_t data_begin, uint64_t alignment) {
  return data_begin % alignment == 0 && std::ranges::all_of(header.tensors(), [&](const auto& tensor) {
           return std::countr_zero(data_begin + tensor.begin) >=
                  std::countr_zero(tensor.nbytes() | alignment);
         });
}

void check(FuzzedDataProvider& input) {
  const std::vector<Tensor> tensors = any_tensors(input);
  std::vector<format::TensorSpec> specs;
  for (const Tensor& tensor : tensors) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  const int64_t alignment =
      input.PickValueInArray<int64_t>({0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096});
  const bool has_metadata = input.ConsumeBool();
  format::MetadataBuilder builder;
  while (has_metadata && input.remaining_bytes() > 0) {
    const std::string key = input.ConsumeRandomLengthString(20);
    builder.add(key, input.ConsumeRandomLengthString(40));
  }
  const format::Metadata metadata = std::move(builder).build();
  try {
    const format::SerializedHeader written =
        format::serialize_header(specs, has_metadata ? &metadata : nullptr, alignment);
    require(written.bytes.size() % 8 == 0, "the data begins at a multiple of eight bytes");
    const format::Header header =
        format::parse_header(std::string_view(written.bytes).substr(format::kPrefixSize), written.data_size);
    require_valid(header, written.data_size);
    require_announced(header, specs, written.order);
    require(alignment == 0 || is_aligned(header, written.bytes.size(), alignment), "every tensor is aligned");
    require(header.metadata().has_value() == has_metadata, "metadata is there if there was some");
    require(!has_metadata || *header.metadata() == metadata, "metadata is read as it was");
  } catch (const SafetensorError&) {
    // Not UTF-8, a reserved name, a size that overflows.
  }
}

}  // namespace
}  // namespace torch_safetensors::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  torch_safetensors::fuzz::check(input);
  return 0;
}
