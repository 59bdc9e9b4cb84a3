#include "packages/weights_file.h"

#include <algorithm>
#include <utility>

#include "format/text.h"
#include "tensors/byte_range.h"
#include "tensors/checksums.h"
#include "tensors/source.h"
#include "tensors/write_into.h"

namespace torch_safetensors::packages {
namespace {

using format::TensorEntry;
using tensors::Checkpoint;

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

}  // namespace

std::vector<WeightsFile::Weight> WeightsFile::match(const Record& record,
                                                    const std::vector<std::string>& names,
                                                    const Checkpoint& file, bool strict) {
  Differences differences;
  std::vector<Weight> weights;
  for (const std::string& name : names) {
    if (is_folded(name) || record.constants().contains(name)) {
      continue;
    }
    const TensorEntry* const recorded = record.weight(name);
    const TensorEntry* const found = recorded ? record.find_in(file, *recorded) : nullptr;
    if (found == nullptr) {
      differences.add("missing", name);
    } else if (found->dtype != recorded->dtype || !std::ranges::equal(found->shape, recorded->shape)) {
      differences.add("different", name,
                      ": the package needs " + format::describe(recorded->dtype, recorded->shape) +
                          ", the file has " + format::describe(found->dtype, found->shape));
    } else {
      weights.push_back({name, recorded, found});
    }
  }
  if (strict) {
    for (const std::string_view name : file.names()) {
      if (!record.knows(name)) {
        differences.add("unexpected", name);
      }
    }
  }
  differences.throw_if_any(file.source());
  return weights;
}

WeightsFile::WeightsFile(const Record& record, const std::vector<std::string>& names,
                         const std::string& filename, const ConstantsOptions& options)
    : file_(filename, options.backend), weights_(match(record, names, file_, options.strict)) {
  if (options.strict_digest) {
    require_digest(record);
  }
}

void WeightsFile::require_digest(const Record& record) const {
  record.require_checksums();
  std::vector<const TensorEntry*> recorded;
  for (const Weight& weight : weights_) {
    recorded.push_back(weight.recorded);
  }
  tensors::verify_tensors(file_.source(), record.weights(), recorded, file_.read(entries(), at::kCPU),
                          "not what the package was made with");
}

std::vector<const TensorEntry*> WeightsFile::entries() const {
  std::vector<const TensorEntry*> entries;
  for (const Weight& weight : weights_) {
    entries.push_back(weight.found);
  }
  return entries;
}

NamedConstants WeightsFile::read(at::Device device) const {
  std::vector<at::Tensor> tensors = file_.read(entries(), device);
  NamedConstants constants;
  for (size_t i = 0; i < weights_.size(); ++i) {
    constants.emplace(weights_[i].name, std::move(tensors[i]));
  }
  return constants;
}

void WeightsFile::read_into(const NamedConstants& constants) const {
  std::vector<tensors::Target> targets;
  for (const Weight& weight : weights_) {
    const at::Tensor& out = constants.at(weight.name);
    tensors::check_memory(out, file_.source() + ": tensor " + format::in_quotes(weight.name));
    targets.push_back({weight.found, out});
  }
  tensors::write_into(file_, targets);
}

bool is_folded(std::string_view name) { return name.starts_with("_FOLDED_CONST_"); }

bool WeightsFile::is_mapped_on(at::Device device) const { return device.is_cpu() && file_.is_mapped(); }

}  // namespace torch_safetensors::packages
