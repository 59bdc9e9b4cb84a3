#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch_safetensors/replace.h>
#include <torch_safetensors/torch_safetensors.h>
#include <torch_safetensors/writer.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "process.h"

namespace ts = torch_safetensors;

namespace {

class Api : public testing::Test {
 protected:
  /// A second copy may come into the process after the one that the program is linked to.
  static void SetUpTestSuite() {
    const std::string other = environment("LIBRARIES");
    if (!other.empty()) {
      ASSERT_NE(dlopen(other.c_str(), RTLD_NOW), nullptr) << dlerror();
      ASSERT_EQ(mapped_files("libtorch_safetensors").size(), 2U);
    }
  }

  static void TearDownTestSuite() { expect_no_python(); }

  void SetUp() override {
    tensors_.insert("x", at::arange(6, at::kFloat).view({2, 3}));
    tensors_.insert("y", at::arange(3, at::kLong));
    metadata_.insert("made by", "a test");
    ts::save_file(tensors_, path_, metadata_);
  }

  void expect_equal(const ts::TensorDict& loaded) {
    ASSERT_EQ(loaded.size(), tensors_.size());
    for (const auto& entry : tensors_) {
      EXPECT_TRUE(at::equal(loaded.at(entry.key()), entry.value())) << entry.key();
    }
  }

  const std::string path_ = data("api.safetensors");
  ts::TensorDict tensors_;
  ts::Metadata metadata_;
};

TEST_F(Api, Version) { EXPECT_EQ(ts::version(), environment("VERSION")); }

TEST_F(Api, LoadFile) {
  expect_equal(ts::load_file(path_));
  expect_equal(ts::load_file(path_, at::kCPU, "mmap"));
  expect_equal(ts::load_file(path_, at::kCPU, "pread"));
  EXPECT_TRUE(ts::load_file(path_, at::kMeta).at("x").is_meta());
}

TEST_F(Api, WritingToALoadedTensorLeavesTheFile) {
  ts::load_file(path_, at::kCPU, "mmap").at("x").fill_(7);
  expect_equal(ts::load_file(path_));
}

TEST_F(Api, Writer) {
  const std::string copy = data("written.safetensors");
  ts::Writer writer(copy, tensors_, metadata_);
  writer.write("y", tensors_.at("y"));
  EXPECT_THROW(writer.write("y", tensors_.at("y")), c10::ValueError);
  writer.write("x", tensors_.at("x"));
  writer.close();
  expect_equal(ts::load_file(copy));
}

TEST_F(Api, ReplaceTensor) {
  tensors_.insert_or_assign("y", at::arange(3, at::kLong) * 7);
  ts::replace_tensor(path_, "y", tensors_.at("y"));
  expect_equal(ts::load_file(path_));
  EXPECT_FALSE(ts::recover(path_));
  EXPECT_THROW(ts::replace_tensor(path_, "z", tensors_.at("y")), ts::SafetensorError);
}

TEST_F(Api, Progress) {
  std::vector<std::pair<uint64_t, uint64_t>> calls;
  const ts::ProgressGuard guard([&](uint64_t done, uint64_t total) { calls.emplace_back(done, total); });
  ts::load_file(path_, at::kCPU, "pread");
  ASSERT_GE(calls.size(), 2U);
  EXPECT_EQ(calls.front(), std::pair(uint64_t{0}, uint64_t{48}));
  EXPECT_EQ(calls.back(), std::pair(uint64_t{48}, uint64_t{48}));
}

TEST_F(Api, SaveAndLoadBytes) {
  const at::Tensor bytes = ts::save(tensors_, metadata_);
  EXPECT_EQ(bytes.scalar_type(), at::kByte);
  EXPECT_EQ(static_cast<uintmax_t>(bytes.numel()), std::filesystem::file_size(path_));
  expect_equal(ts::load(bytes));
  expect_equal(ts::load(bytes, at::kCPU, /*copy=*/false));
}

TEST_F(Api, LoadSome) {
  EXPECT_TRUE(at::equal(ts::load_tensor(path_, "y"), tensors_.at("y")));
  const std::vector<at::Tensor> loaded = ts::load_tensors(path_, {"x", "y"}, at::kCPU, "pread");
  EXPECT_TRUE(at::equal(loaded.at(0), tensors_.at("x")));
  EXPECT_TRUE(at::equal(loaded.at(1), tensors_.at("y")));
}

TEST_F(Api, LoadInto) {
  at::Tensor out = at::zeros({4, 3});
  ts::load_into(path_, "x", out.slice(0, 1, 3));
  EXPECT_EQ(out.sum().item<float>(), 15);
  EXPECT_EQ(out[1][2].item<float>(), 2);
}

TEST_F(Api, KeysAndMetadata) {
  const std::vector<std::string> keys = ts::keys(path_);
  EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()), (std::set<std::string>{"x", "y"}));
  const ts::Metadata metadata = ts::metadata(path_);
  ASSERT_EQ(metadata.size(), 1U);
  EXPECT_EQ(metadata.at("made by"), "a test");
}

TEST_F(Api, SaveReplacesTheFileDurably) {
  ts::TensorDict other;
  other.insert("z", at::ones({1}));
  ts::save_file(other, path_, std::nullopt, /*fsync=*/true);
  EXPECT_EQ(ts::keys(path_), std::vector<std::string>{"z"});
  EXPECT_EQ(ts::metadata(path_).size(), 0U);
}

TEST_F(Api, OsError) {
  try {
    ts::load_file(data("missing"));
    FAIL();
  } catch (const ts::OsError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_EQ(error.what(), "[Errno 2] No such file or directory: '" + data("missing") + "'");
  }
}

TEST_F(Api, SafetensorError) {
  std::ofstream(data("malformed")) << "these are not tensors";
  EXPECT_THROW(ts::load_file(data("malformed")), ts::SafetensorError);
  EXPECT_THROW(ts::load_tensor(path_, "z"), ts::SafetensorError);
}

TEST_F(Api, ValueError) {
  EXPECT_THROW(ts::load_file(path_, at::kCPU, "fast"), c10::ValueError);
  tensors_.insert("z", at::zeros({2}, at::kComplexDouble));
  EXPECT_THROW(ts::save(tensors_), c10::ValueError);
}

TEST_F(Api, OperatorsAreRegistered) {
  const auto load_tensor = c10::Dispatcher::singleton().findSchemaOrThrow("safetensors::load_tensor", "");
  std::vector<c10::IValue> stack{path_, "x", at::Device(at::kCPU), "auto", c10::IValue(), false};
  load_tensor.callBoxed(stack);
  EXPECT_TRUE(at::equal(stack.at(0).toTensor(), tensors_.at("x")));
}

}  // namespace
