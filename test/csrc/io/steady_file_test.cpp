#include "io/steady_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class SteadyFileTest : public testing::Test {
 protected:
  /// As another process replaces a file.
  void replace(const std::string& name, std::string_view content) const {
    write_file(directory_ / "new", content);
    ASSERT_EQ(std::rename((directory_ / "new").c_str(), (directory_ / name).c_str()), 0);
  }

  std::shared_ptr<const File> open_index() const { return std::make_shared<const File>(index_); }
  File open_shard() const { return File(shard_); }

  /// Takes all slots, so that what comes after keeps nothing.
  std::vector<std::unique_ptr<SteadyFile>> crowd() const {
    std::vector<std::unique_ptr<SteadyFile>> files;
    for (size_t i = 0; i < kMaxKept; ++i) {
      files.push_back(std::make_unique<SteadyFile>(open_shard(), open_index()));
    }
    return files;
  }

  static std::string text_of(const SteadyFile& file) {
    std::string text(file.size(), '?');
    file.open()->read_at(0, writable(text));
    return text;
  }

  void expect_replaced(const SteadyFile& file) const {
    expect_os_error(ESTALE,
                    "[Errno " + std::to_string(ESTALE) +
                        "] the file was replaced since it was opened; open it again: '" + shard_ + "'",
                    [&] { file.open(); });
  }

  const TestDirectory directory_;
  const std::string shard_ = write_file(directory_ / "shard", "abc");
  const std::string index_ = write_file(directory_ / "index", "{}");
};

TEST_F(SteadyFileTest, KeepsTheDescriptorOfOneFile) {
  const auto others = crowd();
  const SteadyFile file(open_shard());
  EXPECT_TRUE(file.is_kept());
  replace("shard", "xyz");
  EXPECT_EQ(text_of(file), "abc");
}

TEST_F(SteadyFileTest, OfManyFilesKeepsSome) {
  const auto others = crowd();
  EXPECT_TRUE(others.back()->is_kept());
  const SteadyFile file(open_shard(), open_index());
  EXPECT_FALSE(file.is_kept());
  EXPECT_EQ(text_of(file), "abc");
  EXPECT_EQ(text_of(file), "abc");
}

TEST_F(SteadyFileTest, GivesItsSlotBack) {
  crowd();
  EXPECT_TRUE(SteadyFile(open_shard(), open_index()).is_kept());
}

TEST_F(SteadyFileTest, LeavesMostDescriptorsToOthers) {
  EXPECT_EQ(run_in_child([&] {
              struct rlimit limit{20, 20};
              if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
                ::_exit(1);
              }
              const std::shared_ptr<const File> index = open_index();
              std::vector<std::unique_ptr<SteadyFile>> files;
              size_t kept = 0;
              for (int i = 0; i < 50; ++i) {
                files.push_back(std::make_unique<SteadyFile>(open_shard(), index));
                kept += files.back()->is_kept() ? 1 : 0;
              }
              ::_exit(kept == 5 ? 0 : 2);
            }),
            0);
}

TEST_F(SteadyFileTest, RefusesAnotherFileOfThatName) {
  const auto others = crowd();
  const SteadyFile file(open_shard(), open_index());
  replace("shard", "xyz");
  expect_replaced(file);
  std::filesystem::remove(shard_);
  expect_replaced(file);
}

TEST_F(SteadyFileTest, RefusesTheFileOfAnIndexThatWasReplaced) {
  const auto others = crowd();
  const SteadyFile file(open_shard(), open_index());
  replace("index", "{}");  // with the same text
  expect_replaced(file);
}

TEST_F(SteadyFileTest, MoreLinksAreNoOtherContent) {
  const auto others = crowd();
  const SteadyFile file(open_shard(), open_index());
  ASSERT_EQ(::link(shard_.c_str(), (directory_ / "other").c_str()), 0);
  ASSERT_EQ(::chmod(shard_.c_str(), 0600), 0);
  EXPECT_EQ(text_of(file), "abc");
}

TEST_F(SteadyFileTest, OtherErrorsAreWhatTheyAre) {
  const auto others = crowd();
  const SteadyFile file(open_shard(), open_index());
  std::filesystem::remove(shard_);
  std::filesystem::create_directory(shard_);
  expect_os_error(EISDIR, "[Errno 21] Is a directory: '" + shard_ + "'", [&] { file.open(); });
}

TEST_F(SteadyFileTest, IdentitiesTellFilesApart) {
  const FileIdentity identity = open_shard().identity();
  EXPECT_EQ(identity.size, 3U);
  EXPECT_TRUE(leads_to(shard_, identity));
  EXPECT_FALSE(leads_to(index_, identity));
  EXPECT_FALSE(leads_to(directory_ / "none", identity));
  write_file(shard_, "abcd");  // in place
  EXPECT_FALSE(leads_to(shard_, identity));
}

}  // namespace
}  // namespace torch_safetensors::io
