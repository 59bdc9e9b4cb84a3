#include "tensors/checkpoint.h"

#include <ATen/Functions.h>

#include "tensors/safetensors_file.h"
#include "tensors/write_into.h"

namespace torch_safetensors::tensors {
namespace {

using Entries = std::vector<const format::TensorEntry*>;

/// A header of uint8 tensors of one row each, back to back.
std::string header_of(const std::vector<std::pair<std::string, size_t>>& tensors,
                      const std::string& more = "") {
  std::string json = "{" + more;
  size_t begin = 0;
  for (const auto& [name, size] : tensors) {
    json += (json.size() > 1 ? "," : "") + ("\"" + name + R"(":{"dtype":"U8","shape":[)") +
            std::to_string(size) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
            std::to_string(begin + size) + "]}";
    begin += size;
  }
  return json + "}";
}

class CheckpointTest : public testing::TestWithParam<const char*> {
 protected:
  CheckpointTest() {
    write_safetensors(directory_ / "2",
                      header_of({{"a", 3}, {"none", 0}, {"c", 2}}, R"("__metadata__":{"k":"2"})"), "abcde");
    write_safetensors(directory_ / "1", header_of({{"d", 1}, {"b", 4}}, R"("__metadata__":{"j":"","k":"1"})"),
                      "vwxyz");
    write_index(R"("a":"2","none":"2","c":"2","b":"1","d":"1")");
  }

  void write_index(const std::string& entries) {
    io::write_file(index_, R"({"weight_map":{)" + entries + "}}");
  }

  Checkpoint open() const { return Checkpoint(index_, GetParam()); }

  void expect_refused(const std::string& text) const {
    expect_error<SafetensorError>(index_ + ": " + text, [&] { open(); });
  }

  const io::TestDirectory directory_;
  const std::string index_ = directory_ / "model.safetensors.index.json";
};

std::string text_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::vector<std::string_view> names_of(const Entries& entries) {
  std::vector<std::string_view> names;
  for (const format::TensorEntry* entry : entries) {
    names.push_back(entry->name);
  }
  return names;
}

TEST_P(CheckpointTest, IsItsFilesOneAfterTheOther) {
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.size(), 5U);
  EXPECT_EQ(names_of(checkpoint.entries()), (std::vector<std::string_view>{"d", "b", "a", "none", "c"}));
  EXPECT_EQ(checkpoint.names(), names_of(checkpoint.entries()));
  EXPECT_EQ(checkpoint.sorted_names(), (std::vector<std::string_view>{"a", "b", "c", "d", "none"}));
  EXPECT_TRUE(checkpoint.contains("c"));
  EXPECT_FALSE(checkpoint.contains("x"));
  EXPECT_EQ(checkpoint.source(), index_);
  EXPECT_EQ(checkpoint.source_of(checkpoint.entry("a")), directory_ / "2");
  EXPECT_EQ(checkpoint.source_of(checkpoint.entry("b")), directory_ / "1");
  EXPECT_TRUE(checkpoint.is_before(checkpoint.entry("b"), checkpoint.entry("a")));
  EXPECT_FALSE(checkpoint.is_before(checkpoint.entry("c"), checkpoint.entry("a")));
  EXPECT_EQ(checkpoint.find("x"), nullptr);
  expect_error<SafetensorError>(index_ + ": tensor 'x': not in these 2 files, which hold 5 tensors",
                                [&] { checkpoint.entry("x"); });
}

TEST_P(CheckpointTest, ReadsAcrossFilesInTheOrderAskedFor) {
  const Checkpoint checkpoint = open();
  const Entries entries{&checkpoint.entry("c"), &checkpoint.entry("d"), &checkpoint.entry("a"),
                        &checkpoint.entry("none"), &checkpoint.entry("b")};
  std::string text;
  for (const at::Tensor& tensor : checkpoint.read(entries, at::kCPU)) {
    text += text_of(tensor) + "|";
  }
  EXPECT_EQ(text, "de|v|abc||wxyz|");
  const auto like = [&](std::string_view name) {
    return at::empty_like(checkpoint.read(checkpoint.entry(name), at::kCPU));
  };
  const at::Tensor a = like("a"), b = like("b");
  load_into(checkpoint, {"a", "b"}, {a, b});
  EXPECT_EQ(text_of(a) + text_of(b), "abcwxyz");
  load_into(checkpoint, {"b", "a"}, {b.narrow(0, 0, 2), a.narrow(0, 0, 1)}, {{{2}, {1}}});
  EXPECT_EQ(text_of(a) + text_of(b), "bbcyzyz");
  checkpoint.will_need(entries);
}

TEST_P(CheckpointTest, ReadsAllInTheOrderOfItsEntries) {
  std::string text;
  std::vector<at::Tensor> tensors = open().read_all(at::kCPU);
  for (const at::Tensor& tensor : tensors) {
    text += text_of(tensor);
  }
  EXPECT_EQ(text, "vwxyzabcde");
}

TEST_P(CheckpointTest, HasItsBytesInOnePiece) {
  const Checkpoint checkpoint = open();
  const std::string all = io::read_file(directory_ / "1") + io::read_file(directory_ / "2");
  std::string across(20, '?'), one(4, '?');
  const uint64_t end_of_first = std::filesystem::file_size(directory_ / "1");
  // Over the border of two files, and back.
  const io::ReadRange ranges[] = {{end_of_first - 10, io::writable(across)},
                                  {checkpoint.position(checkpoint.entry("b")), io::writable(one)}};
  checkpoint.bytes().read(ranges);
  EXPECT_EQ(across, all.substr(end_of_first - 10, 20));
  EXPECT_EQ(one, "wxyz");
  EXPECT_EQ(all.substr(checkpoint.position(checkpoint.entry("c")), 2), "de");
}

TEST_P(CheckpointTest, MergesMetadata) {
  const Checkpoint checkpoint = open();
  EXPECT_TRUE(checkpoint.has_metadata());
  const Metadata metadata = checkpoint.metadata();
  EXPECT_EQ(metadata.size(), 2U);
  EXPECT_EQ(metadata.at("j"), "");
  EXPECT_EQ(metadata.at("k"), "1");
}

TEST_P(CheckpointTest, LeavesChecksumsOfOneFileOut) {
  write_safetensors(directory_ / "2",
                    header_of({{"a", 3}, {"none", 0}, {"c", 2}},
                              R"("__metadata__":{"torch_safetensors.xxh3_128":"of these alone"})"),
                    "abcde");
  EXPECT_EQ(open().metadata().size(), 2U);
  EXPECT_EQ(Checkpoint(directory_ / "2", GetParam()).metadata().size(), 1U);
}

TEST_P(CheckpointTest, MayHaveNoFiles) {
  write_index("");
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.size(), 0U);
  EXPECT_FALSE(checkpoint.has_metadata());
  EXPECT_TRUE(checkpoint.read_all(at::kCPU).empty());
  EXPECT_EQ(checkpoint.find("a"), nullptr);
}

TEST_P(CheckpointTest, OpensADirectory) {
  const Checkpoint checkpoint(directory_.path(), GetParam());
  EXPECT_EQ(checkpoint.source(), index_);
  EXPECT_EQ(text_of(checkpoint.read(checkpoint.entry("c"), at::kCPU)), "de");
  const Entries entries{&checkpoint.entry("b")};
  EXPECT_EQ(checkpoint.position(*entries[0]), std::filesystem::file_size(directory_ / "1") - 4);
}

TEST_P(CheckpointTest, SaysWhichFileIsMissing) {
  std::filesystem::remove(directory_ / "2");
  expect_error<OsError>("[Errno 2] No such file or directory: '" + (directory_ / "2") + "'", [&] { open(); });
}

TEST_P(CheckpointTest, SaysWhichFileIsMalformed) {
  io::write_file(directory_ / "2", "short");
  expect_error<SafetensorError>((directory_ / "2") + ": ", [&] { open(); });
}

TEST_P(CheckpointTest, RefusesAnIndexOfOtherFiles) {
  const std::string one = directory_ / "1", two = directory_ / "2";
  write_index(R"("a":"2","none":"2","c":"2","b":"1","d":"1","e":"1")");
  expect_refused(
      "the index and its 2 files differ; 1 tensor is not in the file that the index assigns it to: "
      "'e' (the index says that it is in " +
      one + ")");
  write_index(R"("a":"2","none":"2","c":"1","b":"1")");
  expect_refused(
      "the index and its 2 files differ; 1 tensor is not in the file that the index assigns it to: "
      "'c' (the index says that it is in " +
      one + "); 1 tensor is not in the index: 'd' (in " + one + ")");
  write_index(R"("a":"2","b":"1")");
  expect_refused("the index and its 2 files differ; 3 tensors are not in the index: 'd' (in " + one +
                 "), 'none' (in " + two + "), 'c' (in " + two +
                 "); pass strict_index=False to load only what the index assigns");
}

TEST_P(CheckpointTest, RefusesATensorInTwoFiles) {
  const std::string one = directory_ / "1", two = directory_ / "2";
  write_safetensors(one, header_of({{"d", 1}, {"a", 4}}), "vwxyz");
  write_index(R"("a":"2","none":"2","c":"2","d":"1")");
  expect_refused("the index and its 2 files differ; 1 tensor is in two files: 'a' (in " + two +
                 ", as the index says, and in " + one +
                 "); pass strict_index=False to load only what the index assigns");
}

TEST_P(CheckpointTest, NamesOnlyTheFirstDifferences) {
  std::string assigned = R"("a":"2","none":"2","c":"2","b":"1","d":"1")";
  for (int i = 0; i < 8; ++i) {
    assigned += R"(,"x)" + std::to_string(i) + R"(":"1")";
  }
  write_index(assigned);
  const std::string where = " (the index says that it is in " + (directory_ / "1") + ")";
  expect_refused(
      "the index and its 2 files differ; 8 tensors are not in the files that the index assigns "
      "them to: 'x0'" +
      where + ", 'x1'" + where + ", 'x2'" + where + ", 'x3'" + where + ", 'x4'" + where + ", and 3 more");
}

TEST_P(CheckpointTest, TakesWhatTheIndexAssigns) {
  write_safetensors(directory_ / "1", header_of({{"d", 1}, {"a", 4}}), "vwxyz");
  write_index(R"("a":"2","d":"1")");
  const Checkpoint checkpoint(index_, GetParam(), Checkpoint::Opening::all(/*strict_index=*/false));
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string_view>{"d", "a"}));
  EXPECT_EQ(names_of(checkpoint.entries()), checkpoint.names());
  EXPECT_EQ(checkpoint.size(), 2U);
  EXPECT_FALSE(checkpoint.contains("c"));
  EXPECT_EQ(text_of(checkpoint.read(checkpoint.entry("a"), at::kCPU)), "abc");
  write_index(R"("a":"2","d":"1","e":"1")");
  expect_error<SafetensorError>(
      "1 tensor is not in the file that the index assigns it to: 'e' (the index says that it is in ",
      [&] { Checkpoint(index_, GetParam(), Checkpoint::Opening::all(/*strict_index=*/false)); });
}

TEST_P(CheckpointTest, ByNameNeedsTheFilesOfTheNamesAlone) {
  const std::string names[] = {"c", "a", "unheard of"};
  for (const char* damage : {"", "short"}) {
    std::filesystem::remove(directory_ / "1");
    if (*damage != 0) {
      io::write_file(directory_ / "1", damage);
    }
    const Checkpoint named(index_, GetParam(), Checkpoint::Opening::of(names));
    EXPECT_EQ(named.files().size(), 1U);
    EXPECT_EQ(text_of(named.read(named.entry("c"), at::kCPU)), "de");
    expect_error<SafetensorError>("tensor 'unheard of': not in these 2 files, which hold 5 tensors",
                                  [&] { named.entry("unheard of"); });
    const Checkpoint present(index_, GetParam(), Checkpoint::Opening::present());
    EXPECT_EQ(text_of(present.read(present.entry("a"), at::kCPU)), "abc");
    EXPECT_EQ(present.names(), (std::vector<std::string_view>{"a", "none", "c", "b", "d"}));
    EXPECT_TRUE(present.contains("b"));
    const auto expect_damage = [&](auto act) {
      if (*damage == 0) {
        expect_error<OsError>("[Errno 2] No such file or directory: '" + (directory_ / "1") + "'", act);
      } else {
        expect_error<SafetensorError>((directory_ / "1") + ": ", act);
      }
    };
    expect_damage([&] { present.entry("b"); });
    expect_damage([&] { present.metadata(); });
    expect_damage([&] { present.require_whole(false); });
    expect_damage([&] { open(); });
  }
}

TEST_P(CheckpointTest, SaysOfOneNameThatItsFileDoesNotHaveIt) {
  write_index(R"("a":"2","e":"2")");
  const std::string names[] = {"e"};
  const Checkpoint checkpoint(index_, GetParam(), Checkpoint::Opening::of(names));
  expect_error<SafetensorError>(index_ + ": tensor 'e': the index says that it is in " + (directory_ / "2") +
                                    ", which does not have it",
                                [&] { checkpoint.entry("e"); });
}

TEST_P(CheckpointTest, RefusesEntriesOfAnotherCheckpoint) {
  const Checkpoint checkpoint = open();
  const Checkpoint other(directory_ / "2", GetParam());
  const format::TensorEntry copy = other.entry("c");
  for (const format::TensorEntry* entry : {&other.entry("a"), &other.entry("c"), &copy}) {
    for (const Checkpoint* asked : {&checkpoint, entry == &copy ? &other : &checkpoint}) {
      expect_error<c10::Error>(
          asked->source() + ": tensor '" + std::string(entry->name) + "' is an entry of another checkpoint",
          [&] { asked->file_of(*entry); });
      EXPECT_THROW(asked->position(*entry), c10::Error);
      EXPECT_THROW(asked->read(std::span(&entry, 1), at::kCPU), c10::Error);
    }
  }
}

TEST_P(CheckpointTest, KnowsWhetherItIsStillThere) {
  const Checkpoint checkpoint = open();
  const Checkpoint folder(directory_.path(), GetParam());
  const Checkpoint file(directory_ / "1", GetParam());
  EXPECT_TRUE(checkpoint.is_current() && folder.is_current() && file.is_current());
  write_safetensors(directory_ / "model.safetensors", header_of({{"a", 1}}), "x");
  EXPECT_TRUE(checkpoint.is_current());
  EXPECT_FALSE(folder.is_current());
  std::filesystem::copy_file(index_, directory_ / "copy");
  std::filesystem::rename(directory_ / "copy", index_);  // with the same text
  EXPECT_FALSE(checkpoint.is_current());
  std::filesystem::remove(directory_ / "1");
  EXPECT_FALSE(file.is_current());
}

INSTANTIATE_TEST_SUITE_P(Backends, CheckpointTest, testing::Values("mmap", "pread"));

}  // namespace
}  // namespace torch_safetensors::tensors
