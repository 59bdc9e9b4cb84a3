#include "tensors/piecewise_load.h"

#include <ATen/Functions.h>

#include <cstring>
#include <thread>

#include "tensors/fake_device.h"
#include "tensors/safetensors_file.h"
#include "tensors/storage.h"
#include "torch_safetensors/errors.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

using Names = std::optional<std::vector<std::string>>;

at::Tensor tensor_of(std::string_view text) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), text.data(), text.size());
  return tensor;
}

/// A file as it would come from elsewhere.
class PiecewiseLoadTest : public testing::Test {
 protected:
  PiecewiseLoadTest() {
    tensors_.insert("a", at::arange(10, at::kByte));
    tensors_.insert("b", at::arange(1000, at::kInt));
    tensors_.insert("c", at::empty({0, 3}, at::kByte));
    tensors_.insert("d", at::arange(7, at::kByte));
    const at::Tensor saved = save(tensors_, std::nullopt, /*checksum=*/true);
    file_.assign(static_cast<const char*>(saved.const_data_ptr()), saved.nbytes());
  }

  c10::intrusive_ptr<SourceHeader> header(bool knows_size = true) const {
    const int64_t size = header_size("source", tensor_of(file_.substr(0, 8)), std::nullopt);
    const auto data_size = static_cast<int64_t>(file_.size()) - 8 - size;
    return c10::make_intrusive<SourceHeader>("source", tensor_of(file_.substr(8, size)),
                                             knows_size ? std::optional(data_size) : std::nullopt);
  }

  /// Begin and size of each piece, which are filled on the way.
  std::vector<std::pair<int64_t, int64_t>> fill(PiecewiseLoad& load) const {
    std::vector<std::pair<int64_t, int64_t>> pieces;
    while (auto piece = load.next()) {
      auto& [begin, memory] = *piece;
      std::memcpy(memory.mutable_data_ptr(), file_.data() + begin, memory.nbytes());
      pieces.emplace_back(begin, memory.numel());
      load.finish(begin);
    }
    return pieces;
  }

  void expect_taken(PiecewiseLoad& load, const std::vector<std::string>& expected) const {
    const auto [names, separator, tensors] = load.take();
    EXPECT_EQ(names, expected);
    for (size_t i = 0; i < names.size(); ++i) {
      EXPECT_TRUE(at::equal(tensors[i].cpu(), tensors_.at(names[i]))) << names[i];
      EXPECT_EQ(tensors[i].storage().nbytes(), tensors[i].nbytes());
      EXPECT_FALSE(tensors[i].storage().resizable());
    }
  }

  TensorDict tensors_;
  std::string file_;
};

// In the file: b at 0, a at 4000, c at 4010, d at 4010.
const std::vector<std::string> kAll = {"b", "a", "c", "d"};

TEST_F(PiecewiseLoadTest, CutsWhatFollowsOneAnotherIntoPieces) {
  for (const bool knows_size : {true, false}) {
    for (const int64_t size : {1, 7, 1000, 4005, 4017, 1 << 20}) {
      PiecewiseLoad load(header(knows_size), std::nullopt, {at::kCPU}, true, size, 0);
      const int64_t data = load.threads(1 << 20, 1) * size;
      EXPECT_GE(data, 4017);
      EXPECT_LT(data, 4017 + size);
      int64_t position = header()->data_begin();
      for (const auto& [begin, nbytes] : fill(load)) {
        EXPECT_EQ(begin, position);
        EXPECT_EQ(nbytes, std::min<int64_t>(size, header()->end() - begin));
        position += nbytes;
      }
      EXPECT_EQ(position, header()->end());
      expect_taken(load, kAll);
    }
  }
}

TEST_F(PiecewiseLoadTest, LeavesOutWhatNobodyWants) {
  using Pieces = std::vector<std::pair<int64_t, int64_t>>;
  const int64_t data = header()->data_begin();
  const auto pieces = [&](const Names& names, int64_t size, int64_t gap) {
    PiecewiseLoad load(header(), names, {at::kCPU}, false, size, gap);
    return fill(load);
  };
  EXPECT_EQ(pieces({{"d"}}, 100, 0), (Pieces{{data + 4010, 7}}));
  EXPECT_EQ(pieces({{"d", "b"}}, 5000, 9), (Pieces{{data, 4000}, {data + 4010, 7}}));
  EXPECT_EQ(pieces({{"d", "b"}}, 5000, 10), (Pieces{{data, 4017}}));
  // The gap would fill the piece.
  EXPECT_EQ(pieces({{"d", "b"}}, 4010, 10), (Pieces{{data, 4000}, {data + 4010, 7}}));
  EXPECT_EQ(pieces({{"d", "b"}}, 4011, 10), (Pieces{{data, 4011}, {data + 4011, 6}}));
  EXPECT_EQ(pieces({{"c"}}, 100, 10), Pieces{});
  EXPECT_EQ(pieces({std::vector<std::string>{}}, 100, 10), Pieces{});
}

TEST_F(PiecewiseLoadTest, GivesEachTensorOnceInTheOrderOfTheData) {
  PiecewiseLoad load(header(), {{"d", "a", "d", "b"}}, {at::kCPU}, false, 64, 1 << 10);
  fill(load);
  expect_taken(load, {"b", "a", "d"});
}

TEST_F(PiecewiseLoadTest, WorksOnSeveralThreads) {
  PiecewiseLoad load(header(), std::nullopt, {at::kCPU}, true, 3, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { fill(load); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  expect_taken(load, kAll);
}

TEST_F(PiecewiseLoadTest, IsNotTakenBeforeThePiecesAreWhereTheyBelong) {
  PiecewiseLoad load(header(), std::nullopt, {at::kCPU}, true, 3, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { fill(load); });
  }
  // Tried again and again, while the others verify what they have filled.
  for (bool is_taken = false; !is_taken;) {
    try {
      expect_taken(load, kAll);
      is_taken = true;
    } catch (const c10::Error&) {
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_F(PiecewiseLoadTest, IsNotTakenWhenATensorDidNotReachItsDevice) {
  fake::reset();
  PiecewiseLoad load(header(), {{"b", "a"}}, {fake::kDevice}, false, 5000, 0);
  fake::fail_copy(1);
  EXPECT_ANY_THROW(fill(load));
  fill(load);  // the rest, if there is any
  expect_error<c10::Error>("not filled yet, or taken before", [&] { load.take(); });
  fake::reset();
}

TEST_F(PiecewiseLoadTest, BringsEachToItsDevice) {
  fake::reset();
  {
    PiecewiseLoad load(header(), {{"d", "b", "a"}}, {at::kMeta, fake::kDevice, at::kCPU}, false, 64, 0);
    fill(load);
    const auto [names, separator, tensors] = load.take();
    EXPECT_EQ(names, (std::vector<std::string>{"b", "a", "d"}));
    EXPECT_EQ(tensors[0].device().type(), c10::Device(fake::kDevice).type());
    EXPECT_TRUE(at::equal(tensors[0].cpu(), tensors_.at("b")));
    EXPECT_TRUE(tensors[1].is_cpu());
    EXPECT_TRUE(tensors[2].is_meta());
  }
  fake::reset();
}

TEST_F(PiecewiseLoadTest, ReadsNothingForMetaButToVerify) {
  PiecewiseLoad load(header(), std::nullopt, {at::kMeta}, false, 64, 0);
  EXPECT_EQ(load.next(), std::nullopt);
  EXPECT_EQ(load.threads(5, 5), 0);
  PiecewiseLoad verified(header(), std::nullopt, {at::kMeta}, true, 64, 0);
  EXPECT_EQ(fill(verified).size(), 63u);
  EXPECT_TRUE(std::get<2>(verified.take())[0].is_meta());
}

TEST_F(PiecewiseLoadTest, FindsDamage) {
  file_.back() ^= 1;
  PiecewiseLoad load(header(), std::nullopt, {at::kCPU}, true, 64, 0);
  fill(load);
  expect_error<SafetensorError>("source: tensor 'd': damaged: its checksum is ", [&] { load.take(); });
}

TEST_F(PiecewiseLoadTest, RefusesMisuse) {
  PiecewiseLoad load(header(), std::nullopt, {at::kCPU}, false, 64, 0);
  expect_error<c10::Error>("not filled yet, or taken before", [&] { load.take(); });
  expect_error<c10::Error>("no piece that begins at byte 5 is being filled", [&] { load.finish(5); });
  fill(load);
  const int64_t begin = header()->data_begin();
  expect_error<c10::Error>("is being filled", [&] { load.finish(begin); });
  load.take();
  expect_error<c10::Error>("not filled yet, or taken before", [&] { load.take(); });
  expect_error<c10::ValueError>("expected one device, or one for each name, not 2", [&] {
    PiecewiseLoad(header(), {{"a"}}, {at::kCPU, at::kCPU}, false, 64, 0);
  });
  expect_error<c10::ValueError>("pieces of 0 bytes",
                                [&] { PiecewiseLoad(header(), std::nullopt, {at::kCPU}, false, 0, 0); });
  expect_error<SafetensorError>("source: tensor 'x': not in this file, which holds 4 tensors",
                                [&] { PiecewiseLoad(header(), {{"x"}}, {at::kCPU}, false, 64, 0); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
