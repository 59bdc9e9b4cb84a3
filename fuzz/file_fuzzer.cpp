// Whole files: bytes, a mapped file and a file that is read are refused for the same reason or give the same
// tensors.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "format/header_json.h"
#include "header_checks.h"
#include "scratch_file.h"
#include "torch_safetensors/torch_safetensors.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace torch_safetensors::fuzz {
namespace {

struct Outcome {
  std::optional<TensorDict> tensors;
  /// Without the name of the source in front.
  std::string error;
};

template <typename Load>
Outcome outcome_of(std::string_view source, const Load& load) {
  try {
    return {load(), ""};
  } catch (const SafetensorError& error) {
    const std::string text = error.what();
    require(text.starts_with(source), "errors begin with their source");
    return {std::nullopt, text.substr(source.size())};
  }
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() &&
         (a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

void require_same(const Outcome& a, const Outcome& b) {
  require(a.error == b.error, "all ways to load refuse for the same reason");
  require(a.tensors.has_value() == b.tensors.has_value(), "all ways to load have the same verdict");
  if (!a.tensors) {
    return;
  }
  require(a.tensors->size() == b.tensors->size(), "all ways to load give all tensors");
  for (const auto& item : *a.tensors) {
    const at::Tensor other = b.tensors->at(item.key());
    require(item.value().dtype() == other.dtype() && item.value().sizes() == other.sizes() &&
                same_bytes(item.value(), other),
            "all ways to load give the same tensors");
  }
}

void check(std::span<const uint8_t> bytes) {
  static ScratchFile file;
  file.fill(bytes);
  const at::Tensor data = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::copy(bytes.begin(), bytes.end(), data.mutable_data_ptr<uint8_t>());

  const Outcome copied = outcome_of("bytes: ", [&] { return load(data); });
  // Files place tensors at any address; only a copy can do without alignment.
  try {
    require_same(copied, outcome_of("bytes: ", [&] { return load(data, at::kCPU, false); }));
  } catch (const c10::ValueError&) {
    require(copied.tensors.has_value(), "only what loads can be unaligned");
  }
  for (const char* const backend : {"mmap", "pread"}) {
    const std::string source = file.path() + ": ";
    require_same(copied, outcome_of(source, [&] { return load_file(file.path(), at::kCPU, backend); }));
  }
  if (copied.tensors) {
    const TensorDict again = load(save(*copied.tensors));
    require_same(copied, {again, ""});
  }
}

/// Where the JSON object ends that begins `bytes`, so far as a look at brackets and quotes can tell.
size_t end_of_json(std::span<const uint8_t> bytes) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint8_t byte = bytes[i];
    if (in_string) {
      i += byte == '\\';
      in_string = byte != '"';
    } else if (byte == '"') {
      in_string = true;
    } else if (byte == '{' || byte == '[') {
      ++depth;
    } else if ((byte == '}' || byte == ']') && --depth == 0) {
      return i + 1;
    }
  }
  return bytes.size();
}

/// Nearly every change of a header makes its length field wrong, or the size of the data, and what is behind
/// those checks would never be reached. Puts both right where it can.
size_t repair(uint8_t* data, size_t size, size_t max_size) {
  if (size < format::kPrefixSize) {
    return size;
  }
  const uint64_t json_size = end_of_json({data + format::kPrefixSize, size - format::kPrefixSize});
  for (size_t i = 0; i < format::kPrefixSize; ++i) {
    data[i] = static_cast<uint8_t>(json_size >> (8 * i));
  }
  const uint64_t data_begin = format::kPrefixSize + json_size;
  try {
    const std::string_view json(reinterpret_cast<const char*>(data) + format::kPrefixSize, json_size);
    const uint64_t data_size = data_size_of(format::parse_header_json(json));
    if (data_size <= max_size - data_begin) {
      if (data_begin + data_size > size) {
        std::memset(data + size, 0x5A, data_begin + data_size - size);
      }
      return data_begin + data_size;
    }
  } catch (const SafetensorError&) {
    // It stays as broken as it is.
  }
  return size;
}

}  // namespace
}  // namespace torch_safetensors::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  return seed % 4 == 0 ? size : torch_safetensors::fuzz::repair(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  torch_safetensors::fuzz::check({data, size});
  return 0;
}
