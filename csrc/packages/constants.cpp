#include "packages/constants.h"

#include <utility>

#include "format/text.h"
#include "tensors/checksums.h"
#include "tensors/open_file.h"
#include "tensors/source.h"

namespace torch_safetensors::packages {
namespace {

using format::TensorEntry;
using tensors::OpenFile;

/// A weight of the package, and where the file has it.
struct Pair {
  std::string name;
  const TensorEntry* recorded;
  const TensorEntry* found;
};

/// Collects what is wrong with a file, so that one error tells of all of it.
class Differences {
 public:
  void add(const char* what, std::string_view name, const std::string& detail = "") {
    text_ += std::string("\n  ") + what + " " + format::in_quotes(name) + detail;
  }

  void throw_if_any(const std::string& source) const {
    if (!text_.empty()) {
      tensors::throw_malformed(source, "these are not weights of this package:" + text_);
    }
  }

 private:
  std::string text_;
};

std::vector<Pair> match(const Record& record, const std::vector<std::string>& names, const OpenFile& file,
                        bool strict) {
  Differences differences;
  std::vector<Pair> pairs;
  for (const std::string& name : names) {
    if (record.constants().contains(name)) {
      continue;
    }
    const TensorEntry* const recorded = record.weight(name);
    const TensorEntry* const found = recorded ? record.find_in(file.header(), *recorded) : nullptr;
    if (found == nullptr) {
      differences.add("missing", name);
    } else if (found->dtype != recorded->dtype || !std::ranges::equal(found->shape, recorded->shape)) {
      differences.add("different", name,
                      ": the package needs " + format::describe(recorded->dtype, recorded->shape) +
                          ", the file has " + format::describe(found->dtype, found->shape));
    } else {
      pairs.push_back({name, recorded, found});
    }
  }
  if (strict) {
    for (const TensorEntry& entry : file.header().tensors()) {
      if (!record.knows(entry.name)) {
        differences.add("unexpected", entry.name);
      }
    }
  }
  differences.throw_if_any(file.source());
  return pairs;
}

}  // namespace

std::unordered_map<std::string, at::Tensor> read_constants(const Record& record,
                                                           const std::vector<std::string>& names,
                                                           const std::string& filename, at::Device device,
                                                           const ConstantsOptions& options) {
  const OpenFile file(filename, options.backend);
  const std::vector<Pair> pairs = match(record, names, file, options.strict);
  std::vector<const TensorEntry*> recorded, found;
  for (const Pair& pair : pairs) {
    recorded.push_back(pair.recorded);
    found.push_back(pair.found);
  }
  if (options.strict_digest) {
    record.require_checksums();
    tensors::verify_tensors(file.source(), record.weights(), recorded, file.read(found, at::kCPU),
                            "not what the package was made with");
  }
  std::vector<at::Tensor> tensors = file.read(found, device);
  std::unordered_map<std::string, at::Tensor> constants;
  for (size_t i = 0; i < pairs.size(); ++i) {
    constants.emplace(pairs[i].name, std::move(tensors[i]));
  }
  for (const auto& constant : record.constants()) {
    constants.emplace(constant.key(), constant.value().to(device));
  }
  return constants;
}

}  // namespace torch_safetensors::packages
