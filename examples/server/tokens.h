#pragma once

#include <ATen/core/Tensor.h>

#include <stdexcept>

/// A request that the client has to mend.
class BadRequest : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a request asks to be encoded: (sentences, tokens) int64 each.
struct Tokens {
  at::Tensor input_ids;
  at::Tensor attention_mask;
};

/// Reads the body of a request, a safetensors file of both. Throws BadRequest, or SafetensorError where it is
/// none. Compiled code checks nothing of what it is given, and a number that is not in the vocabulary ends
/// the process: so everything is checked here.
Tokens parse_tokens(const std::string& body, int64_t vocabulary);
