#include "tensors/write_ranges.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <tuple>

#include "io/child.h"
#include "tensors/range_file.h"
#include "tensors/safetensors_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

using Names = std::vector<std::string>;

class RangesTest : public ::testing::Test {
 protected:
  RangesTest() {
    whole_.insert("cube", at::randn({5, 4, 6}));
    whole_.insert("bytes", at::arange(9, at::kByte));
    whole_.insert("none", at::empty({0, 3}));
    whole_.insert("scalar", at::scalar_tensor(3, at::kLong));
    save_file(whole_, directory_ / "saved");
    expected_ = io::read_file(directory_ / "saved");
    std::filesystem::remove(directory_ / "saved");
  }

  std::vector<NamedTensor> spec() const {
    std::vector<NamedTensor> spec;
    for (const auto& item : whole_) {
      spec.push_back({item.key(), at::empty_like(item.value(), at::device(at::kMeta))});
    }
    return spec;
  }

  RangeFile make() const { return RangeFile(path_, spec(), std::nullopt, false, 0); }

  void write(const RangeFile& file, const std::vector<Box>& boxes) const {
    write_ranges(file.temporary(), path_, boxes, false);
  }

  Box box(const std::string& name, std::vector<int64_t> offsets, at::IntArrayRef shape) const {
    at::Tensor part = whole_.at(name);
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      part = part.narrow(static_cast<int64_t>(dim), offsets[dim], shape[dim]);
    }
    return {{name, part}, std::move(offsets)};
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model";
  TensorDict whole_;
  std::string expected_;
};

TEST_F(RangesTest, MakeUpWhatSaveFileWrites) {
  RangeFile file = make();
  write(file, {box("cube", {0, 0, 0}, {3, 2, 6}), box("cube", {3, 0, 0}, {2, 4, 1})});
  const std::string temporary = file.temporary();
  const std::vector<Box> others = {box("bytes", {4}, {5}), box("scalar", {}, {}), box("none", {0, 1}, {0, 2}),
                                   box("cube", {3, 0, 1}, {2, 4, 5})};
  EXPECT_EQ(io::run_in_child([&] { write_ranges(temporary, path_, others, true); }), 0);
  write(file, {box("cube", {0, 2, 0}, {3, 2, 6}), box("bytes", {0}, {4})});
  EXPECT_EQ(directory_.names().size(), 2);  // the file, and the slot that it holds
  EXPECT_EQ(file.commit(), "");
  EXPECT_TRUE(io::read_file(path_) == expected_);
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(RangesTest, AreAValidFileFromTheBeginning) {
  const RangeFile file = make();
  const TensorDict loaded = load_file(file.temporary());
  EXPECT_TRUE(loaded.at("cube").equal(at::zeros({5, 4, 6})));
  EXPECT_EQ(std::filesystem::file_size(file.temporary()), expected_.size());
}

TEST_F(RangesTest, LeaveTheirSurroundingsAlone) {
  RangeFile file = make();
  write(file, {box("cube", {1, 1, 1}, {2, 2, 2})});
  EXPECT_EQ(file.commit(), "");
  at::Tensor expected = at::zeros({5, 4, 6});
  const auto inside = [](const at::Tensor& t) { return t.narrow(0, 1, 2).narrow(1, 1, 2).narrow(2, 1, 2); };
  inside(expected).copy_(inside(whole_.at("cube")));
  EXPECT_TRUE(load_file(path_).at("cube").equal(expected));
}

TEST_F(RangesTest, OfViewsArePackedAndResolved) {
  whole_ = TensorDict();
  const at::Tensor complex = at::randn({3, 4}, at::kComplexFloat);
  whole_.insert("conjugate", complex.conj().resolve_conj());
  RangeFile file = make();
  write(file, {{{"conjugate", complex.conj()}, {0, 0}}});
  EXPECT_EQ(file.commit(), "");
  EXPECT_TRUE(load_file(path_).at("conjugate").equal(whole_.at("conjugate")));
}

TEST_F(RangesTest, ThatDoNotFitAreRefusedBeforeAnyIsWritten) {
  const RangeFile file = make();
  const std::string before = io::read_file(file.temporary());
  const Box good = box("bytes", {0}, {9});
  const auto expect = [&](const std::string& text, const Box& bad) {
    expect_error<c10::ValueError>(path_ + ": tensor 'bytes': " + text, [&] { write(file, {good, bad}); });
  };
  const at::Tensor bytes = at::ones({3}, at::kByte);
  expect("the file holds Byte but the part to be written is Float", {{"bytes", at::ones({3})}, {0}});
  expect("a part of shape [3] at [7] does not lie within shape [9]", {{"bytes", bytes}, {7}});
  expect("a part of shape [3] at [-1] does not lie within shape [9]", {{"bytes", bytes}, {-1}});
  expect("a part of shape [10] at [0] does not lie within shape [9]",
         {{"bytes", at::ones({10}, at::kByte)}, {0}});
  expect("a part of shape [3] at [0, 0] does not lie within shape [9]", {{"bytes", bytes}, {0, 0}});
  expect("a part of shape [1, 3] at [0] does not lie within shape [9]", {{"bytes", bytes.view({1, 3})}, {0}});
  expect_error<SafetensorError>(path_ + ": tensor 'x'", [&] { write(file, {good, {{"x", bytes}, {0}}}); });
  EXPECT_TRUE(io::read_file(file.temporary()) == before);
}

TEST_F(RangesTest, AreGivenUp) {
  io::write_file(path_, "old");
  {
    const RangeFile file = make();
  }
  RangeFile file = make();
  file.abort();
  file.abort();
  expect_error<c10::ValueError>("was committed or given up before", [&] { std::ignore = file.commit(); });
  EXPECT_EQ(io::read_file(path_), "old");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(RangesTest, AreNotGivenUpByForkedChildren) {
  auto file = std::make_unique<RangeFile>(path_, spec(), std::nullopt, false, 0);
  EXPECT_EQ(io::run_in_child([&] {
              expect_error<c10::ValueError>("belongs to another process",
                                            [&] { std::ignore = file->commit(); });
              file->abort();
              file.reset();
            }),
            0);
  EXPECT_EQ(file->commit(), "");
}

TEST_F(RangesTest, OfAKilledMakerAreRemovedByTheNext) {
  io::Child child([&](auto done) {
    const RangeFile file = make();
    done();
  });
  child.kill();
  EXPECT_EQ(directory_.names().size(), 2);
  make().abort();
  EXPECT_EQ(directory_.names(), Names{});
}

}  // namespace
}  // namespace torch_safetensors::tensors
