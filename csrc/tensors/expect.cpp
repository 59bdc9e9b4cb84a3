#include "tensors/expect.h"

#include <algorithm>

#include "format/text.h"
#include "tensors/source.h"
#include "tensors/with_checkpoint.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {
namespace tensors {
namespace {

std::string signature(const format::TensorEntry& entry) {
  return format::signature(entry.dtype, entry.shape);
}

void check_signature(const Checkpoint& file, const format::TensorEntry& entry, const std::string& expect) {
  if (const std::string found = signature(entry); found != expect) {
    throw_malformed(file.source_of(entry), "tensor " + format::in_quotes(entry.name) + ": the file holds " +
                                               found + " but " + format::printable(expect) + " is expected");
  }
}

/// Every name was found, so the file has others where it has more.
void check_exact(const Checkpoint& file, std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  for (const format::TensorEntry* entry : file.entries()) {
    if (!std::binary_search(names.begin(), names.end(), entry->name)) {
      throw_malformed(file.source(), "tensor " + format::in_quotes(entry->name) +
                                         ": not expected: the file holds " + std::to_string(file.size()) +
                                         " tensors but " + std::to_string(names.size()) + " are expected");
    }
  }
}

}  // namespace

std::tuple<std::vector<std::string>, std::vector<std::string>> signatures(const std::string& filename,
                                                                          bool strict_index) {
  std::vector<std::string> names;
  std::vector<std::string> expect;
  const Checkpoint file(filename, "auto", Checkpoint::Opening::all(strict_index));
  for (const format::TensorEntry* entry : file.entries()) {
    names.emplace_back(entry->name);
    expect.push_back(signature(*entry));
  }
  return {std::move(names), std::move(expect)};
}

std::vector<std::string> names_of_present(const std::string& filename) {
  const Checkpoint file(filename, "auto", Checkpoint::Opening::present());
  const std::vector<std::string_view> names = file.names();
  return {names.begin(), names.end()};
}

std::vector<std::string> signatures_of(const std::string& filename, const std::vector<std::string>& names) {
  const Checkpoint file(filename, "auto", Checkpoint::Opening::of(names));
  std::vector<std::string> expect;
  for (const std::string& name : names) {
    expect.push_back(signature(file.entry(name)));
  }
  return expect;
}

std::vector<at::Tensor> load_expected(const std::string& filename, const std::vector<std::string>& names,
                                      at::Device device, std::string_view backend,
                                      const std::optional<std::vector<std::string>>& expect, bool exact,
                                      bool verify, bool strict_index) {
  TORCH_CHECK_VALUE(!expect || expect->size() == names.size(), "expect has ", expect ? expect->size() : 0,
                    " entries for ", names.size(), " names");
  using Opening = Checkpoint::Opening;
  return with_checkpoint(filename, backend, exact ? Opening::all(strict_index) : Opening::of(names),
                         [&](auto file) {
                           std::vector<const format::TensorEntry*> entries;
                           entries.reserve(names.size());
                           for (size_t i = 0; i < names.size(); ++i) {
                             entries.push_back(&file->entry(names[i]));
                             if (expect) {
                               check_signature(*file, *entries.back(), (*expect)[i]);
                             }
                           }
                           if (exact) {
                             check_exact(*file, names);
                           }
                           return file->read(entries, device, {}, verify);
                         });
}

at::Tensor load_expected_tensor(const std::string& filename, const std::string& name, at::Device device,
                                std::string_view backend, const std::optional<std::string>& expect,
                                bool verify) {
  std::optional<std::vector<std::string>> expectations;
  if (expect) {
    expectations = {*expect};
  }
  return load_expected(filename, {name}, device, backend, expectations, /*exact=*/false, verify,
                       /*strict_index=*/true)
      .front();
}

}  // namespace tensors

std::vector<at::Tensor> load_tensors(const std::string& filename, const std::vector<std::string>& names,
                                     at::Device device, std::string_view backend, bool verify) {
  return tensors::load_expected(filename, names, device, backend, std::nullopt, /*exact=*/false, verify,
                                /*strict_index=*/true);
}

}  // namespace torch_safetensors
