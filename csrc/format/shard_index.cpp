#include "format/shard_index.h"

#include <algorithm>
#include <utility>

#include "format/json_reader.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

/// The depth inside the outermost object, where `weight_map` is.
constexpr int kTopDepth = 1;

using NameAndFile = std::pair<std::string, std::string>;

/// Takes the weight map from the events of a parser.
class WeightMapBuilder final : public JsonEvents {
 public:
  const std::string& error() const override { return error_; }

  bool on_null() override { return scalar("null"); }
  bool on_bool() override { return scalar("a boolean"); }
  bool on_number(std::string_view) override { return scalar("a number"); }

  bool on_string(std::string_view text) override {
    if (state_ != State::kFile) {
      return scalar("a string");
    }
    entries_.back().second = text;
    state_ = State::kNames;
    return true;
  }

  bool on_key(std::string_view key) override {
    if (state_ == State::kNames) {
      entries_.emplace_back(key, "");
      state_ = State::kFile;
    } else if (state_ == State::kTop && key == "weight_map") {
      state_ = State::kWeightMap;
      return !std::exchange(has_weight_map_, true) || fail("duplicate field `weight_map`");
    } else if (state_ == State::kTop) {
      state_ = State::kIgnored;
    }
    return true;
  }

  bool on_object_begin() override {
    ++depth_;
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kWeightMap:
        state_ = State::kNames;
        return true;
      case State::kIgnored:
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool on_object_end() override { return end_nested(); }

  bool on_array_begin() override {
    ++depth_;
    return state_ == State::kIgnored || unexpected("an array");
  }

  bool on_array_end() override { return end_nested(); }

  /// The entries in the order of the text. Throws SafetensorError if there was no weight map.
  std::vector<NameAndFile> take() && {
    if (!has_weight_map_) {
      throw SafetensorError("not an index of a checkpoint: it has no weight_map");
    }
    return std::move(entries_);
  }

 private:
  enum class State {
    kStart,      // before the outermost object
    kTop,        // in it
    kWeightMap,  // at the value of weight_map
    kNames,      // in it
    kFile,       // at one of its values
    kIgnored,    // at or in another field
  };

  bool end_nested() {
    --depth_;
    if (depth_ == kTopDepth) {
      state_ = State::kTop;
    }
    return true;
  }

  bool scalar(std::string_view found) {
    if (state_ != State::kIgnored) {
      return unexpected(found);
    }
    if (depth_ == kTopDepth) {
      state_ = State::kTop;
    }
    return true;
  }

  bool unexpected(std::string_view found) {
    const std::string end = ", found " + std::string(found);
    switch (state_) {
      case State::kFile:
        return fail("weight_map: tensor " + in_quotes(entries_.back().first) + ": expected a file name" +
                    end);
      case State::kWeightMap:
        return fail("weight_map: expected an object" + end);
      default:
        return fail("expected an object" + end);
    }
  }

  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  State state_ = State::kStart;
  int depth_ = 0;
  bool has_weight_map_ = false;
  std::vector<NameAndFile> entries_;
  std::string error_;
};

/// An index comes from anywhere, and must not make a program read files that its folder does not hold.
bool stays_in_folder(std::string_view file) {
  if (file.empty() || file.front() == '/' || file.find('\0') != std::string_view::npos) {
    return false;
  }
  for (size_t begin = 0; begin <= file.size();) {
    const size_t end = std::min(file.find('/', begin), file.size());
    if (file.substr(begin, end - begin) == "..") {
      return false;
    }
    begin = end + 1;
  }
  return true;
}

/// `entries` are sorted.
void check_entries(const std::vector<NameAndFile>& entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& [name, file] = entries[i];
    if (i > 0 && entries[i - 1].first == name) {
      throw SafetensorError("weight_map: tensor " + in_quotes(name) + ": stands there twice, in " +
                            in_quotes(entries[i - 1].second) + " and in " + in_quotes(file));
    }
    if (!stays_in_folder(file)) {
      throw SafetensorError("weight_map: tensor " + in_quotes(name) + ": " + in_quotes(file) +
                            " is not the name of a file in the folder of the index");
    }
  }
}

}  // namespace

ShardIndex parse_shard_index(std::string_view json) {
  WeightMapBuilder builder;
  read_json(json, "index", builder);
  std::vector<NameAndFile> entries = std::move(builder).take();
  std::sort(entries.begin(), entries.end());
  check_entries(entries);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const NameAndFile& a, const NameAndFile& b) { return a.second < b.second; });
  ShardIndex index;
  for (auto& [name, file] : entries) {
    if (index.shards_.empty() || index.shards_.back().file != file) {
      index.shards_.push_back({std::move(file), {}});
    }
    index.shards_.back().names.push_back(std::move(name));
  }
  return index;
}

}  // namespace torch_safetensors::format
