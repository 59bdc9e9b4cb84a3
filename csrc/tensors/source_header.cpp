#include "tensors/source_header.h"

#include <limits>
#include <string_view>

#include "tensors/load.h"
#include "tensors/source.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {
namespace {

constexpr int64_t kNoSize = std::numeric_limits<int64_t>::max();

std::string_view text_of(const at::Tensor& bytes) {
  TORCH_CHECK_VALUE(
      bytes.scalar_type() == at::kByte && bytes.dim() == 1 && bytes.is_cpu() && bytes.is_contiguous(),
      "expected a contiguous 1-D uint8 tensor on the CPU");
  const auto memory = readable_bytes(bytes);
  return {reinterpret_cast<const char*>(memory.data()), memory.size()};
}

uint64_t checked_size(int64_t size) {
  TORCH_CHECK_VALUE(size >= 0, "a size must not be negative, as ", size, " is");
  return static_cast<uint64_t>(size);
}

std::optional<uint64_t> checked_size(std::optional<int64_t> size) {
  return size ? std::optional(checked_size(*size)) : std::nullopt;
}

}  // namespace

int64_t header_size(const std::string& source, const at::Tensor& prefix, std::optional<int64_t> file_size) {
  return static_cast<int64_t>(
      parse_header_size_of(source, text_of(prefix), checked_size(file_size.value_or(kNoSize))));
}

SourceHeader::SourceHeader(std::string source, const at::Tensor& json, std::optional<int64_t> data_size)
    : source_(std::move(source)),
      header_(parse_header_of(source_, text_of(json), checked_size(data_size))),
      data_begin_(static_cast<int64_t>(format::kPrefixSize) + json.numel()),
      is_held_to_size_(data_size.has_value()) {
  // Without a size to hold it to, a header may claim any: positions must stay what a file can have.
  const uint64_t data_end = header_.tensors().empty() ? 0 : header_.tensors().back().end;
  if (data_end > static_cast<uint64_t>(kNoSize - data_begin_)) {
    throw_malformed(source_, "the tensors end at byte " + std::to_string(data_end) +
                                 " of the data, and no file is so large");
  }
}

JoinedNames SourceHeader::keys() const { return join_names(names_of(entries_of(header_))); }

int64_t SourceHeader::nbytes(const std::vector<std::string>& names) const {
  uint64_t sum = 0;
  for (const std::string& name : names) {
    sum += find_entry(source_, header_, name).nbytes();
  }
  return static_cast<int64_t>(sum);
}

int64_t SourceHeader::end() const {
  const auto tensors = header_.tensors();
  return data_begin_ + (tensors.empty() ? 0 : static_cast<int64_t>(tensors.back().end));
}

void SourceHeader::check_data_size(int64_t data_size) const {
  check_data_size_of(source_, header_, checked_size(data_size));
}

}  // namespace torch_safetensors::tensors
