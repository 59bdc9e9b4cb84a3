#include "tokens.h"

#include <ATen/ATen.h>
#include <torch_safetensors/torch_safetensors.h>

namespace {

// As in export.py, which compiles for these.
constexpr int64_t kMaxSentences = 64;
constexpr int64_t kMaxTokens = 512;

at::Tensor find(const torch_safetensors::TensorDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw BadRequest("no tensor '" + name + "'");
  }
  const at::Tensor& tensor = found->value();
  if (tensor.scalar_type() != at::kLong || tensor.dim() != 2) {
    throw BadRequest("tensor '" + name + "': expected int64 [sentences, tokens], got " + tensor.toString() +
                     " of " + std::to_string(tensor.dim()) + " dimensions");
  }
  return tensor;
}

void check_range(const at::Tensor& tensor, const char* name, int64_t most) {
  const auto [least_found, most_found] = at::aminmax(tensor);
  for (const int64_t value : {least_found.item<int64_t>(), most_found.item<int64_t>()}) {
    if (value < 0 || value > most) {
      throw BadRequest(std::string("tensor '") + name + "': " + std::to_string(value) + " is not in 0 to " +
                       std::to_string(most));
    }
  }
}

}  // namespace

Tokens parse_tokens(const std::string& body, int64_t vocabulary) {
  // A view of the body, which load copies from.
  const at::Tensor bytes =
      at::from_blob(const_cast<char*>(body.data()), static_cast<int64_t>(body.size()), at::kByte);
  const torch_safetensors::TensorDict tensors = torch_safetensors::load(bytes);
  Tokens tokens{find(tensors, "input_ids"), find(tensors, "attention_mask")};
  const int64_t sentences = tokens.input_ids.size(0), length = tokens.input_ids.size(1);
  if (sentences < 1 || sentences > kMaxSentences || length < 1 || length > kMaxTokens) {
    throw BadRequest("tensor 'input_ids': " + std::to_string(sentences) + " sentences of " +
                     std::to_string(length) + " tokens; there must be 1 to " + std::to_string(kMaxSentences) +
                     " of 1 to " + std::to_string(kMaxTokens));
  }
  if (tokens.attention_mask.sizes() != tokens.input_ids.sizes()) {
    throw BadRequest("tensor 'attention_mask': not of the shape of 'input_ids'");
  }
  check_range(tokens.input_ids, "input_ids", vocabulary - 1);
  check_range(tokens.attention_mask, "attention_mask", 1);
  if (at::any(tokens.attention_mask.sum(1) == 0).item<bool>()) {
    throw BadRequest("tensor 'attention_mask': a sentence without tokens");
  }
  return tokens;
}
