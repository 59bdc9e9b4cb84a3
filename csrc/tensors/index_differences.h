#pragma once

#include <string>
#include <string_view>

namespace torch_safetensors::tensors {

/// Collects in what an index and its files differ, so that one error tells of all of it: how many tensors,
/// and the first few.
class IndexDifferences {
 public:
  /// The index assigns the tensor to a file that does not have it.
  void add_lacking(std::string_view name, const std::string& file);
  /// A file has a tensor that the index does not mention.
  void add_unlisted(std::string_view name, const std::string& file);
  /// A file has a tensor that the index assigns to another one.
  void add_second(std::string_view name, const std::string& assigned, const std::string& other);

  /// Throws SafetensorError in the name of `source`, the index, if it has any.
  void throw_if_any(const std::string& source, size_t files) const;

 private:
  struct Kind {
    size_t count = 0;
    std::string first;
    void add(const std::string& text);
    std::string text(const char* one, const char* several) const;
  };

  Kind lacking_;
  Kind unlisted_;
  Kind second_;
};

}  // namespace torch_safetensors::tensors
