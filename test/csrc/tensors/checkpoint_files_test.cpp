#include "tensors/checkpoint_files.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "io/expect_os_error.h"
#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

TEST(SiblingOf, StaysInTheFolder) {
  EXPECT_EQ(sibling_of("a/b/index.json", "f"), "a/b/f");
  EXPECT_EQ(sibling_of("index.json", "f"), "f");
  EXPECT_EQ(sibling_of("./index.json", "sub/f"), "./sub/f");
}

TEST(ChooseCheckpoint, PrefersWhatTransformersPrefers) {
  EXPECT_EQ(choose_checkpoint({"a.safetensors", "model.safetensors", "model.safetensors.index.json"}),
            "model.safetensors");
  EXPECT_EQ(choose_checkpoint({"consolidated.safetensors", "model-00001-of-00002.safetensors",
                               "model-00002-of-00002.safetensors", "model.safetensors.index.json"}),
            "model.safetensors.index.json");
}

TEST(ChooseCheckpoint, TakesTheOnlyOne) {
  EXPECT_EQ(choose_checkpoint({"README.md", "adapter_model.safetensors", "config.json"}),
            "adapter_model.safetensors");
  EXPECT_EQ(
      choose_checkpoint({"config.json", "unet-00001-of-00001.safetensors", "unet.safetensors.index.json"}),
      "unet.safetensors.index.json");
  EXPECT_EQ(choose_checkpoint({"unet.fp16-00001-of-00001.safetensors", "unet.safetensors.index.fp16.json"}),
            "unet.safetensors.index.fp16.json");
  // A file and its index are one checkpoint.
  EXPECT_EQ(choose_checkpoint({"unet.safetensors", "unet.safetensors.index.json"}), "unet.safetensors");
}

TEST(ChooseCheckpoint, DoesNotGuess) {
  EXPECT_EQ(choose_checkpoint({}), "");
  EXPECT_EQ(choose_checkpoint({"config.json", "model.bin"}), "");
  EXPECT_EQ(choose_checkpoint({"a.safetensors", "b.safetensors"}), "");
  EXPECT_EQ(choose_checkpoint({"a.safetensors.index.json", "b.safetensors.index.json"}), "");
  // Shards without an index may not be all.
  EXPECT_EQ(choose_checkpoint({"model-00001-of-00002.safetensors"}), "");
}

TEST(CheckpointIn, SaysWhatADirectoryHolds) {
  const io::TestDirectory directory;
  const std::string end = ": '" + directory.path() + "'";
  io::expect_os_error(
      EISDIR, "[Errno 21] Is a directory, and holds no *.safetensors and no index of such files" + end,
      [&] { checkpoint_in(directory.path()); });
  io::write_file(directory / "b.safetensors", "");
  io::write_file(directory / "a.safetensors", "");
  io::expect_os_error(EISDIR,
                      "[Errno 21] Is a directory, and which of its files is meant is not clear: "
                      "'a.safetensors', 'b.safetensors'" +
                          end,
                      [&] { checkpoint_in(directory.path()); });
  io::write_file(directory / "model.safetensors", "");
  EXPECT_EQ(checkpoint_in(directory.path()), directory / "model.safetensors");
}

TEST(ReadIndex, NamesTheIndex) {
  const io::TestDirectory directory;
  const std::string path = io::write_file(directory / "i.json", "{}");
  expect_error<SafetensorError>(path + ": not an index of a checkpoint", [&] { read_index(io::File(path)); });
}

TEST(ReadIndex, RefusesWhatIsTooLong) {
  const io::TestDirectory directory;
  const std::string path = io::write_file(directory / "i.json", "{}");
  std::filesystem::resize_file(path, format::kMaxIndexSize + 1);  // a hole, which takes no room
  expect_error<SafetensorError>("the index has 1000000001 bytes but at most 1000000000 are read",
                                [&] { read_index(io::File(path)); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
