#include "tensors/checkpoint_files.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "format/text.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/os_error.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

constexpr int kMaxLists = 100;

constexpr std::string_view kFile = ".safetensors";
constexpr std::string_view kIndex = ".safetensors.index.";  // json, or fp16.json and the like

/// A name without what tells files of one checkpoint apart: `model.safetensors` and its index are one.
std::string stem_of(const std::string& name) { return name.substr(0, name.rfind(kFile)); }

bool is_index_of_checkpoint(const std::string& name) {
  return is_index_name(name) && name.find(kIndex) != std::string::npos;
}

bool ends_with_digits(std::string_view text, std::string_view before) {
  constexpr size_t kDigits = 5;
  return text.size() >= kDigits + before.size() &&
         std::ranges::all_of(text.substr(text.size() - kDigits),
                             [](char c) { return '0' <= c && c <= '9'; }) &&
         text.substr(0, text.size() - kDigits).ends_with(before);
}

/// `model-00001-of-00002`
bool is_shard_stem(std::string_view stem) {
  constexpr size_t kEnd = std::string_view("-of-00002").size();
  return ends_with_digits(stem, "-of-") && ends_with_digits(stem.substr(0, stem.size() - kEnd), "-");
}

}  // namespace

bool is_index_name(std::string_view path) { return path.ends_with(".json"); }

format::ShardIndex parse_index_of(const std::string& source, std::string_view json) {
  try {
    return format::parse_shard_index(json);
  } catch (const SafetensorError& error) {
    throw_malformed(source, error.what());
  }
}

format::ShardIndex read_index(const io::File& file) {
  const std::string source = format::printable(file.path());
  if (file.size() > format::kMaxIndexSize) {
    throw_malformed(source, "the index has " + std::to_string(file.size()) + " bytes but at most " +
                                std::to_string(format::kMaxIndexSize) + " are read");
  }
  std::string json(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(json)));
  return parse_index_of(source, json);
}

std::string sibling_of(const std::string& path, std::string_view name) {
  return std::filesystem::path(path).replace_filename(name).string();
}

std::string choose_checkpoint(const std::vector<std::string>& names) {
  // For each checkpoint the name to open: the whole file goes before the index.
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const bool is_file = name.ends_with(kFile) && !is_shard_stem(stem_of(name));
    if (name == "model.safetensors") {
      return name;
    }
    if (is_file || is_index_of_checkpoint(name)) {
      const bool is_other = found.empty() || stem_of(found.back()) != stem_of(name);
      if (is_other) {
        found.push_back(name);
      }
    }
  }
  if (std::ranges::find(found, "model.safetensors.index.json") != found.end()) {
    return "model.safetensors.index.json";
  }
  return found.size() == 1 ? found.front() : "";
}

std::string checkpoint_in(const std::string& directory) {
  std::vector<std::string> names = io::list_directory(directory);
  std::string chosen = choose_checkpoint(names);
  // A list that is made while a save puts one file in the place of several, or the other way round, may have
  // neither: only one that comes twice tells that there is nothing.
  for (int attempt = 0; chosen.empty() && attempt < kMaxLists; ++attempt) {
    std::vector<std::string> again = io::list_directory(directory);
    if (again == names) {
      break;
    }
    names = std::move(again);
    chosen = choose_checkpoint(names);
  }
  if (chosen.empty()) {
    std::string listed;
    for (const std::string& name : names) {
      if (name.ends_with(kFile) || is_index_of_checkpoint(name)) {
        listed += (listed.empty() ? "" : ", ") + format::in_quotes(name);
      }
    }
    io::throw_os_error(EISDIR,
                       "Is a directory, and " +
                           (listed.empty() ? std::string("holds no *.safetensors and no index of such files")
                                           : "which of its files is meant is not clear: " + listed),
                       directory);
  }
  return (std::filesystem::path(directory) / chosen).string();
}

}  // namespace torch_safetensors::tensors
