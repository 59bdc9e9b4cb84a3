#include "tensors/undo_file.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <vector>

#include "tensors/checksums.h"
#include "tensors/safetensors_file.h"
#include "torch_safetensors/replace.h"

namespace torch_safetensors::tensors {
namespace {

using Names = std::vector<std::string>;

/// A file in which `w` was half overwritten when its process died, and the undo file beside it.
class UndoFileTest : public ::testing::TestWithParam<bool> {
 protected:
  UndoFileTest() {
    TensorDict tensors;
    tensors.insert("v", at::arange(3));
    tensors.insert("w", old_);
    save_file(tensors, path_, std::nullopt, /*fsync=*/false, /*checksum=*/GetParam());
    whole_ = io::read_file(path_);
    {
      const OpenFile file(path_, "pread");
      save_undo(io::InPlaceFile(path_), {"w", old_}, recorded_in(file));
    }
    undo_ = io::read_file(undo_path_);
    torn_ = whole_;
    const size_t begin = whole_.size() - old_.nbytes();
    torn_.replace(begin, old_.nbytes() / 2, std::string(old_.nbytes() / 2, '\xEE'));
    io::write_file(path_, torn_);
  }

  /// The digits that the file records for `w`, or nothing.
  std::string recorded_in(const OpenFile& file) const {
    if (!format::records_checksums(file.header())) {
      return {};
    }
    const std::vector<const format::TensorEntry*> entries{&file.entry("w")};
    return format::to_hex(recorded_of(file.source(), file.header(), entries).front());
  }

  /// Writes it over the undo file that is there, as a damaged disk would.
  void put_undo(const std::string& bytes) const { io::write_file(undo_path_, bytes); }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model";
  const std::string undo_path_ = path_ + ".undo";
  const at::Tensor old_ = at::randn({5, 8});
  std::string whole_, torn_, undo_;
};

TEST_P(UndoFileTest, RecoverPutsTheOldBytesBack) {
  EXPECT_TRUE(recover(path_));
  EXPECT_EQ(io::read_file(path_), whole_);
  EXPECT_EQ(directory_.names(), Names{"model"});
  EXPECT_FALSE(recover(path_));
}

TEST_P(UndoFileTest, TheNextReplacementRecoversFirst) {
  const at::Tensor other = at::arange(7, 10);
  replace_tensor(path_, "v", other);
  EXPECT_TRUE(at::equal(load_tensor(path_, "w"), old_));
  EXPECT_TRUE(at::equal(load_tensor(path_, "v"), other));
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_P(UndoFileTest, ATruncatedOneIsRefused) {
  for (size_t size = 0; size < undo_.size(); ++size) {
    put_undo(undo_.substr(0, size));
    EXPECT_THROW(recover(path_), SafetensorError) << size;
    EXPECT_EQ(io::read_file(path_), torn_) << size;
  }
  put_undo(undo_);
  EXPECT_TRUE(recover(path_));
  EXPECT_EQ(io::read_file(path_), whole_);
}

/// Its own checksum covers the values; a changed header names something else, or nothing at all.
TEST_P(UndoFileTest, AChangedByteNeverWritesOtherValues) {
  for (size_t at = 0; at < undo_.size(); ++at) {
    io::write_file(path_, torn_);
    std::string changed = undo_;
    changed[at] ^= 1;
    put_undo(changed);
    try {
      recover(path_);
      EXPECT_EQ(load_tensor(path_, "w").sub(old_).abs().max().item<float>(), 0) << at;
    } catch (const SafetensorError&) {
      EXPECT_EQ(io::read_file(path_), torn_) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, UndoFileTest, testing::Bool(),
                         [](const auto& parameter) { return parameter.param ? "Checksums" : "Plain"; });

}  // namespace
}  // namespace torch_safetensors::tensors
