#include "packages/record.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <charconv>

#include "format/checksum.h"
#include "format/header_json.h"
#include "tensors/source.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::packages {
namespace {

/// What stands in front of errors about a record.
const std::string kSource = "package";

const std::string& find(const std::unordered_map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    tensors::throw_malformed(kSource,
                             "it does not record its weights: make it with torch_safetensors.aoti.package");
  }
  return found->second;
}

format::Header parse_weights(const std::string& json) {
  uint64_t data_size = 0;
  try {
    const format::HeaderContent content = format::parse_header_json(json);
    for (const format::TensorEntry& entry : content.tensors) {
      data_size = std::max(data_size, entry.end);
    }
  } catch (const SafetensorError& error) {
    tensors::throw_malformed(kSource, error.what());
  }
  return tensors::parse_header_of(kSource, json, data_size);
}

at::Tensor bytes_of_hex(const std::string& digits) {
  if (digits.size() % 2 != 0) {
    tensors::throw_malformed(kSource, "its constants are an odd number of hexadecimal digits, " +
                                          std::to_string(digits.size()) + ": the record was cut off");
  }
  at::Tensor bytes = at::empty({static_cast<int64_t>(digits.size() / 2)}, at::kByte);
  uint8_t* into = bytes.mutable_data_ptr<uint8_t>();
  for (size_t i = 0; i < digits.size(); i += 2) {
    const auto [end, error] = std::from_chars(&digits[i], &digits[i] + 2, *into++, 16);
    if (error != std::errc() || end != &digits[i] + 2) {
      tensors::throw_malformed(kSource, "its constants are not hexadecimal at digit " + std::to_string(i));
    }
  }
  return bytes;
}

}  // namespace

Record::Record(const std::unordered_map<std::string, std::string>& package_metadata)
    : weights_(parse_weights(find(package_metadata, "torch_safetensors.weights"))),
      constants_(load(bytes_of_hex(find(package_metadata, "torch_safetensors.constants")))) {
  if (weights_.metadata()) {
    for (const auto& [dropped, kept] : weights_.metadata()->pairs()) {
      if (weights_.find(dropped) == nullptr && weights_.find(kept) != nullptr) {
        kept_.emplace(dropped, kept);
        dropped_.emplace(kept, dropped);
      }
    }
  }
}

const format::TensorEntry* Record::weight(std::string_view name) const {
  const auto found = kept_.find(std::string(name));
  return weights_.find(found == kept_.end() ? name : found->second);
}

const format::TensorEntry* Record::find_in(const tensors::Checkpoint& file,
                                           const format::TensorEntry& weight) const {
  const format::TensorEntry* entry = file.find(weight.name);
  const auto [begin, end] = dropped_.equal_range(std::string(weight.name));
  for (auto name = begin; entry == nullptr && name != end; ++name) {
    entry = file.find(name->second);
  }
  return entry;
}

void Record::require_checksums() const {
  const auto is_recorded = [](const auto& pair) { return pair.first == format::kChecksumsKey; };
  if (!weights_.metadata() || !std::ranges::any_of(weights_.metadata()->pairs(), is_recorded)) {
    tensors::throw_malformed(kSource, "no checksums to compare with: make it with digest=True");
  }
}

bool Record::knows(std::string_view name) const { return weight(name) != nullptr; }

}  // namespace torch_safetensors::packages
