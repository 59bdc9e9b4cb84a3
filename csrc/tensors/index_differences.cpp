#include "tensors/index_differences.h"

#include "format/text.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

/// So many of a kind are named.
constexpr size_t kNamed = 5;

}  // namespace

void IndexDifferences::Kind::add(const std::string& text) {
  if (count < kNamed) {
    first += (count == 0 ? "" : ", ") + text;
  }
  ++count;
}

std::string IndexDifferences::Kind::text(const char* one, const char* several) const {
  if (count == 0) {
    return "";
  }
  const std::string more = count > kNamed ? ", and " + std::to_string(count - kNamed) + " more" : "";
  return "; " + std::to_string(count) + (count == 1 ? one : several) + ": " + first + more;
}

void IndexDifferences::add_lacking(std::string_view name, const std::string& file) {
  lacking_.add(format::in_quotes(name) + " (the index says that it is in " + file + ")");
}

void IndexDifferences::add_unlisted(std::string_view name, const std::string& file) {
  unlisted_.add(format::in_quotes(name) + " (in " + file + ")");
}

void IndexDifferences::add_second(std::string_view name, const std::string& assigned,
                                  const std::string& other) {
  second_.add(format::in_quotes(name) + " (in " + assigned + ", as the index says, and in " + other + ")");
}

void IndexDifferences::throw_if_any(const std::string& source, size_t files) const {
  if (lacking_.count + unlisted_.count + second_.count == 0) {
    return;
  }
  std::string text = "the index and its " + std::to_string(files) + (files == 1 ? " file" : " files") +
                     " differ" +
                     lacking_.text(" tensor is not in the file that the index assigns it to",
                                   " tensors are not in the files that the index assigns them to") +
                     unlisted_.text(" tensor is not in the index", " tensors are not in the index") +
                     second_.text(" tensor is in two files", " tensors are in two files");
  if (lacking_.count == 0) {
    text += "; pass strict_index=False to load only what the index assigns";
  }
  throw_malformed(source, text);
}

}  // namespace torch_safetensors::tensors
