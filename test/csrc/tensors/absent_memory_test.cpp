#include <ATen/Functions.h>
#include <torch/nn/module.h>

#include <functional>
#include <map>

#include "modules/model.h"
#include "modules/operators.h"
#include "tensors/checksums.h"
#include "tensors/device_save.h"
#include "tensors/load.h"
#include "tensors/python_checkpoint.h"
#include "tensors/python_save.h"
#include "tensors/random_views.h"
#include "tensors/range_file.h"
#include "tensors/safe_open.h"
#include "tensors/safetensors_file.h"
#include "tensors/source_header.h"
#include "tensors/stream_writer.h"
#include "tensors/write_ranges.h"
#include "torch_safetensors/errors.h"
#include "torch_safetensors/replace.h"
#include "torch_safetensors/torch_safetensors.h"

// Random views over storages that were shrunk, freed, or have no address, through every way in: what is there
// is saved and loaded to the byte, what is not is refused, and nothing else happens. Under the address
// sanitizer (scripts/sanitize.sh) a byte too many is an error.

namespace torch_safetensors::tensors {
namespace {

constexpr int kCases = 250;  // of each way

const io::TestDirectory& directory() {
  static const io::TestDirectory directory;
  return directory;
}

std::string path() { return directory() / "m"; }

TensorDict dict(const at::Tensor& tensor) {
  TensorDict tensors;
  tensors.insert("t", tensor);
  return tensors;
}

WrappedTensors wrapped(const at::Tensor& tensor) { return WrappedTensors({c10::List<at::Tensor>({tensor})}); }

at::Tensor saved() { return load_tensor(path(), "t", at::kCPU, "pread"); }

/// A file of the tensor's form, with other values.
std::string make_file(const at::Tensor& like) {
  save_file(dict(at::ones(like.sizes(), like.scalar_type())), path());
  return path();
}

at::Tensor only(const TensorDict& tensors) { return tensors.at("t"); }

/// What a way to save makes of a tensor, loaded again.
using Save = std::function<at::Tensor(const at::Tensor&)>;

at::Tensor write_with_writer(const at::Tensor& tensor, bool checksum) {
  StreamWriter writer(path(), {{"t", at::empty(tensor.sizes(), at::device(at::kMeta).dtype(tensor.dtype()))}},
                      std::nullopt, false, checksum, 0);
  writer.write({"t", tensor});
  (void)writer.close();
  return saved();
}

at::Tensor write_with_ranges(const at::Tensor& tensor) {
  RangeFile file(path(), {{"t", at::empty(tensor.sizes(), at::device(at::kMeta).dtype(tensor.dtype()))}},
                 std::nullopt, false, 0);
  const Box box{{"t", tensor}, std::vector<int64_t>(tensor.dim(), 0)};
  write_ranges(file.temporary(), path(), {&box, 1}, false);
  (void)file.commit();
  return saved();
}

at::Tensor save_module(const at::Tensor& tensor) {
  torch::nn::Module module;
  module.register_buffer("t", tensor);
  save_model(module, path());
  return saved();
}

at::Tensor save_for_python(const at::Tensor& tensor) {
  const PythonSave plan("t", {1}, wrapped(tensor), std::nullopt, /*checksum=*/true);
  const at::Tensor bytes = at::empty({plan.size()}, at::kByte);
  plan.write_to(bytes);
  return only(load(bytes, at::kCPU, true, /*verify=*/true));
}

const std::map<std::string, Save> kSaves = {
    {"save", [](const auto& t) { return only(load(save(dict(t)))); }},
    {"save_with_checksum",
     [](const auto& t) { return only(load(save(dict(t), {}, true), at::kCPU, true, true)); }},
    {"save_file",
     [](const auto& t) {
       save_file(dict(t), path());
       return saved();
     }},
    {"save_tensors",
     [](const auto& t) {
       save_tensors(path(), {"t"}, {t}, std::nullopt, false, true, 64);
       return saved();
     }},
    {"save_model", save_module},
    {"save_model_for_python",
     [](const auto& t) {
       modules::save_model_for_python(path(), "t", {1}, wrapped(t), {}, true, false, true, 0);
       return saved();
     }},
    {"save_file_for_python",
     [](const auto& t) {
       save_file_for_python(path(), "t", {1}, wrapped(t), {}, false, true, 0);
       return saved();
     }},
    {"save_small_for_python",
     [](const auto& t) { return only(load(save_small_for_python("t", {1}, wrapped(t), {}, 1 << 20))); }},
    {"PythonSave", save_for_python},
    {"Writer", [](const auto& t) { return write_with_writer(t, false); }},
    {"WriterWithChecksum", [](const auto& t) { return write_with_writer(t, true); }},
    {"write_ranges", write_with_ranges},
    {"replace_tensor",
     [](const auto& t) {
       make_file(t);
       replace_tensor(path(), "t", t);
       return saved();
     }},
};

/// What a way to load makes of a tensor, from a file of ones.
using Load = std::function<void(const std::string&, const at::Tensor&)>;

void load_module(const std::string& file, const at::Tensor& out) {
  torch::nn::Module module;
  module.register_buffer("t", out);
  load_model(module, file);
}

const std::map<std::string, Load> kLoads = {
    {"load_into", [](const auto& file, const auto& out) { load_into(file, "t", out); }},
    {"load_into_part",
     [](const auto& file, const auto& out) {
       load_into(file, "t", out, std::vector<int64_t>(out.dim(), 0));
     }},
    {"SafeOpen",
     [](const auto& file, const auto& out) {
       SafeOpen(file, at::kCPU, "auto").load_into({"t"}, {out}, std::nullopt);
     }},
    {"load_model", load_module},
};

/// Ways by names, so that each is a test of its own.
template <typename Ways>
std::vector<std::string> names_of(const Ways& ways) {
  std::vector<std::string> names;
  for (const auto& way : ways) {
    names.push_back(way.first);
  }
  return names;
}

template <typename Act>
void expect_refused(const at::Tensor& tensor, Act act) {
  try {
    act();
    ADD_FAILURE() << "not refused: offset " << tensor.storage_offset() << ", sizes " << tensor.sizes()
                  << ", strides " << tensor.strides() << ", storage " << tensor.storage().nbytes();
  } catch (const c10::ValueError& error) {
    const std::string_view text = error.what();
    EXPECT_NE(text.find("tensor 't' "), text.npos) << text;
    EXPECT_NE(text.find(" of its storage, which has "), text.npos) << text;
  }
}

/// What is there may be refused where it is not contiguous, or its elements are one in memory.
bool is_allowed(const c10::Error& error) {
  const std::string_view text = error.what();
  return text.find("is not contiguous") != text.npos || text.find("refers to a single memory") != text.npos;
}

class AbsentMemorySave : public testing::TestWithParam<std::string> {};

TEST_P(AbsentMemorySave, SavesWhatIsThereAndRefusesWhatIsNot) {
  const Save& save = kSaves.at(GetParam());
  RandomViews views(20261129);
  int saved = 0;
  for (int i = 0; i < kCases; ++i) {
    const RandomViews::View view = views.next();
    if (!view.is_there) {
      expect_refused(view.tensor, [&] { save(view.tensor); });
      continue;
    }
    try {
      EXPECT_TRUE(at::equal(save(view.tensor), view.values));
      ++saved;
    } catch (const c10::ValueError& error) {
      EXPECT_TRUE(is_allowed(error)) << error.what();
    }
  }
  EXPECT_GT(saved, kCases / 8);
}

INSTANTIATE_TEST_SUITE_P(, AbsentMemorySave, testing::ValuesIn(names_of(kSaves)),
                         [](const auto& instance) { return instance.param; });

class AbsentMemoryLoad : public testing::TestWithParam<std::string> {};

TEST_P(AbsentMemoryLoad, FillsWhatIsThereAndRefusesWhatIsNot) {
  const Load& load = kLoads.at(GetParam());
  RandomViews views(20261130);
  int loaded = 0;
  for (int i = 0; i < kCases; ++i) {
    const RandomViews::View view = views.next();
    const std::string file = make_file(view.tensor);
    if (!view.is_there) {
      expect_refused(view.tensor, [&] { load(file, view.tensor); });
      continue;
    }
    try {
      load(file, view.tensor);
      EXPECT_TRUE(at::equal(view.tensor.clone(), at::ones(view.tensor.sizes(), view.tensor.scalar_type())));
      ++loaded;
    } catch (const c10::Error& error) {
      EXPECT_TRUE(is_allowed(error)) << error.what();
    }
  }
  EXPECT_GT(loaded, kCases / 8);
}

INSTANTIATE_TEST_SUITE_P(, AbsentMemoryLoad, testing::ValuesIn(names_of(kLoads)),
                         [](const auto& instance) { return instance.param; });

/// A buffer with the bytes of a file in it, shrunk, freed or not.
struct Buffer {
  at::Tensor data;
  bool is_there;
};

Buffer random_buffer(RandomViews& views, const at::Tensor& file) {
  const int64_t offset = 8 * views.below(3), stride = 1 + views.below(2);
  const at::Tensor memory = at::zeros({offset + stride * file.numel()}, at::kByte);
  const at::Tensor data = memory.as_strided({file.numel()}, {stride}, offset);
  data.copy_(file);
  const int64_t needed = offset + stride * (file.numel() - 1) + 1;
  if (views.one_in(2)) {
    const int64_t nbytes = views.one_in(3) ? 0 : needed - 2 + views.below(4);
    at::native::resize_bytes_cpu(memory.storage().unsafeGetStorageImpl(), nbytes);
  }
  return {data, static_cast<int64_t>(memory.storage().nbytes()) >= needed};
}

TEST(AbsentMemory, Buffers) {
  const at::Tensor values = at::arange(8, at::kLong);
  const at::Tensor file = save(dict(values), std::nullopt, /*checksum=*/true);
  RandomViews views(7);
  for (int i = 0; i < kCases; ++i) {
    const Buffer buffer = random_buffer(views, file);
    const bool copy = views.one_in(2), verify = views.one_in(2);
    const at::Device device = views.one_in(4) ? at::kMeta : at::kCPU;
    if (!buffer.is_there) {
      expect_error<c10::ValueError>("data needs ", [&] { load(buffer.data, device, copy, verify); });
    } else if (copy || buffer.data.is_contiguous()) {
      const at::Tensor loaded = only(load(buffer.data, device, copy, verify));
      EXPECT_TRUE(device.is_meta() || at::equal(loaded, values));
    }
  }
}

/// What the Python package calls with bytes that are no tensors of a file.
TEST(AbsentMemory, BytesOfOthers) {
  const at::Tensor file = save(dict(at::ones({3})));
  const std::map<std::string, std::function<void(const at::Tensor&)>> uses = {
      {"write_file", [](const auto& data) { (void)write_file(path(), data, false); }},
      {"parse_index", [](const auto& data) { parse_index("i", data); }},
      {"header_size", [](const auto& data) { header_size("f", data, std::nullopt); }},
      {"SourceHeader", [](const auto& data) { SourceHeader("f", data, std::nullopt); }},
      {"write_to",
       [&](const auto& data) { PythonSave("t", {1}, wrapped(at::ones({3})), {}, false).write_to(data); }},
  };
  RandomViews views(8);
  for (int i = 0; i < kCases; ++i) {
    const Buffer buffer = random_buffer(views, file);
    for (const auto& [name, use] : uses) {
      SCOPED_TRACE(name);
      if (!buffer.is_there || !buffer.data.is_contiguous()) {
        EXPECT_THROW(use(buffer.data), c10::ValueError);
        continue;
      }
      try {
        use(buffer.data);
      } catch (const SafetensorError&) {
      }
    }
  }
  // One byte in memory, and as many as one likes in its shape.
  for (const auto& [name, use] : uses) {
    EXPECT_THROW(use(at::zeros({1}, at::kByte).expand({1000})), c10::ValueError) << name;
  }
}

/// Of names that share memory, a dropped one must not hide that it is not there.
TEST(AbsentMemory, OfATieThatWouldBeDropped) {
  const at::Tensor base = at::zeros({1000});
  const at::Tensor head = base.slice(0, 0, 2);
  at::native::resize_bytes_cpu(base.storage().unsafeGetStorageImpl(), 8);
  const modules::Model model{"Model", {{"all", base}, {"head", head}}};
  const std::string text =
      "tensor 'all' needs 4000 bytes of its storage, which has 8 (storage offset 0, shape "
      "[1000], strides [1])";
  expect_error<c10::ValueError>(text,
                                [&] { (void)modules::save_model(model, path(), {}, true, false, false, 0); });
  TensorDict tensors = dict(at::ones({1}));
  tensors.insert("all", base);
  tensors.insert("head", head);
  expect_error<c10::ValueError>(text, [&] { modules::dropped_names(tensors); });
}

/// Checks alone need no memory: it will be replaced.
TEST(AbsentMemory, OfAModelWhoseTensorsAreReplaced) {
  const at::Tensor freed = at::zeros({3});
  const at::Tensor head = freed.slice(0, 0, 2);
  at::native::resize_bytes_cpu(freed.storage().unsafeGetStorageImpl(), 0);
  const modules::Model model{"Model", {{"t", freed}, {"u", head}}};
  const LoadModelResult names = modules::check_model(model, Checkpoint(make_file(freed), "auto"), false, {});
  EXPECT_TRUE(names.missing.empty() && names.unexpected.empty());
}

TEST(AbsentMemory, OfABufferThatIsAliased) {
  const at::Tensor data = save(dict(at::ones({3})));
  const at::Tensor loaded = only(load(data, at::kCPU, /*copy=*/false));
  EXPECT_THROW(at::native::resize_bytes_cpu(data.storage().unsafeGetStorageImpl(), 0), c10::Error);
  EXPECT_TRUE(at::equal(loaded, at::ones({3})));
}

}  // namespace
}  // namespace torch_safetensors::tensors
