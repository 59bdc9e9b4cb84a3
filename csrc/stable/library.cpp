#include <torch/csrc/stable/library.h>

#include <array>
#include <stdexcept>

#include "stable/arguments.h"
#include "stable/load.h"
#include "stable/save.h"
#include "torch_safetensors/errors.h"

// The operators on lists, registered through torch's stable ABI: one file serves every torch from 2.11 on. It
// has no dictionaries and no classes, and so not the others.

namespace torch_safetensors::stable {
namespace {

using torch::stable::detail::from;

/// As csrc/library.cpp has them. This library reads no index: `strict_index` has nothing to say.
constexpr std::array kSchemas{
    "load_tensor(str filename, str name, Device device='cpu', *, str backend='auto', str? expect=None, "
    "bool verify=False) -> Tensor",
    "load_tensors(str filename, str[] names, Device device='cpu', *, str backend='auto', str[]? expect=None, "
    "bool exact=False, bool verify=False, bool strict_index=True) -> Tensor[]",
    "save_tensors(str filename, str[] names, Tensor[] tensors, str[]? metadata=None, *, bool fsync=False, "
    "bool checksum=False, int? alignment=None) -> ()",
    "load_into(str filename, str name, Tensor(a!) out, *, int[]? offsets=None) -> ()",
    "prefetch(str filename, str[] names) -> ()",
    "keys(str filename, *, bool strict_index=True) -> str[]",
    // For the Python package alone.
    "_version() -> str",
    "_signatures(str filename, *, bool strict_index=True) -> (str[], str[])",
    "_signatures_of(str filename, str[] names) -> str[]",
    "_load_all(str filename, Device device, str backend) -> (str[], Tensor[])",
    "_load_bytes(Tensor data, Device device) -> (str[], Tensor[])",
    "_save_bytes(str[] names, Tensor[] tensors, str[]? metadata) -> Tensor",
};

void refuse_checksums(bool wanted) {
  if (wanted) {
    throw std::invalid_argument(
        "checksums need a build of torch_safetensors for this release of torch: install one "
        "(docs/packaging.md)");
  }
}

void boxed_load_tensor(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  const std::string name = take.text();
  const Device device = take.device();
  const std::string backend = take.text();
  const std::optional<std::string> expect = take.optional_text();
  refuse_checksums(take.flag());
  std::optional<Texts> expectations;
  if (expect) {
    expectations = {*expect};
  }
  stack[0] = from(load_tensors(filename, {name}, device, backend, expectations, /*exact=*/false).front());
}

void boxed_load_tensors(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  const Texts names = take.texts();
  const Device device = take.device();
  const std::string backend = take.text();
  const std::optional<Texts> expect = take.optional_texts();
  const bool exact = take.flag();
  refuse_checksums(take.flag());
  take.flag();
  stack[0] = from(load_tensors(filename, names, device, backend, expect, exact));
}

void boxed_save_tensors(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  Texts names = take.texts();
  std::vector<Tensor> tensors = take.tensors();
  const std::optional<Texts> metadata = take.optional_texts();
  const bool fsync = take.flag();
  const bool checksum = take.flag();
  const int64_t alignment = take.optional_integer().value_or(0);
  refuse_checksums(checksum);
  const SavePlan plan(std::move(names), std::move(tensors), metadata, alignment);
  if (const std::string warning = plan.write_to(filename, fsync); !warning.empty()) {
    aoti_torch_warn(__func__, __FILE__, __LINE__, warning.c_str());
  }
}

void boxed_load_into(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  const std::string name = take.text();
  const Tensor out = take.tensor();
  load_into(filename, name, out, take.optional_integers());
}

void boxed_version(StableIValue* stack, uint64_t, uint64_t) {
  stack[0] = from(std::string(TORCH_SAFETENSORS_VERSION));
}

void boxed_signatures(StableIValue* stack, uint64_t, uint64_t) {
  const auto [names, forms] = signatures(Arguments(stack).text());
  stack[0] = from(names);
  stack[1] = from(forms);
}

void boxed_signatures_of(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  stack[0] = from(signatures_of(filename, take.texts()));
}

void boxed_keys(StableIValue* stack, uint64_t, uint64_t) { stack[0] = from(keys(Arguments(stack).text())); }

void boxed_prefetch(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  prefetch(filename, take.texts());
}

void boxed_load_all(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const std::string filename = take.text();
  const Device device = take.device();
  const auto [names, tensors] = load_all(filename, device, take.text());
  stack[0] = from(names);
  stack[1] = from(tensors);
}

void boxed_load_bytes(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  const Tensor data = take.tensor();
  const auto [names, tensors] = load_bytes(data, take.device());
  stack[0] = from(names);
  stack[1] = from(tensors);
}

void boxed_save_bytes(StableIValue* stack, uint64_t, uint64_t) {
  Arguments take(stack);
  Texts names = take.texts();
  std::vector<Tensor> tensors = take.tensors();
  stack[0] = from(SavePlan(std::move(names), std::move(tensors), take.optional_texts(), 0).to_bytes());
}

}  // namespace

/// The schemas, one to a line. The Python package defines the operators itself, for it can have TorchScript
/// keep the calls whose results are not used, the saves, and this ABI cannot.
extern "C" TORCH_SAFETENSORS_API const char* torch_safetensors_schemas() {
  static const std::string text = [] {
    std::string lines;
    for (const char* schema : kSchemas) {
      lines += std::string(schema) + "\n";
    }
    return lines;
  }();
  return text.c_str();
}

/// Defines the operators, in a program without Python, which runs AOTInductor packages that call them. Not
/// for TorchScript, which would drop saves. To be called once.
extern "C" TORCH_SAFETENSORS_API void torch_safetensors_define_operators() {
  using torch::stable::detail::StableLibrary;
  static StableLibrary library(StableLibrary::Kind::FRAGMENT, "safetensors", nullptr, __FILE__, __LINE__);
  for (const char* schema : kSchemas) {
    library.def(schema);
  }
}

namespace {

void register_those_that_take_tensors(torch::stable::detail::StableLibrary& library) {
  library.impl("save_tensors", &boxed_save_tensors);
  library.impl("load_into", &boxed_load_into);
  library.impl("_load_bytes", &boxed_load_bytes);
  library.impl("_save_bytes", &boxed_save_bytes);
}

}  // namespace

// Lazy conjugate and negative views arrive as they are: torch would copy them first, also those whose memory
// is not there.
STABLE_TORCH_LIBRARY_IMPL(safetensors, Conjugate, m) { register_those_that_take_tensors(m); }
STABLE_TORCH_LIBRARY_IMPL(safetensors, Negative, m) { register_those_that_take_tensors(m); }

STABLE_TORCH_LIBRARY_IMPL(safetensors, CompositeExplicitAutograd, m) {
  register_those_that_take_tensors(m);
  m.impl("load_tensor", &boxed_load_tensor);
  m.impl("load_tensors", &boxed_load_tensors);
  m.impl("prefetch", &boxed_prefetch);
  m.impl("keys", &boxed_keys);
  m.impl("_version", &boxed_version);
  m.impl("_signatures", &boxed_signatures);
  m.impl("_signatures_of", &boxed_signatures_of);
  m.impl("_load_all", &boxed_load_all);
}

}  // namespace torch_safetensors::stable
