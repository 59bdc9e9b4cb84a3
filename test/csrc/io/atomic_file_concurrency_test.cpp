#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "io/atomic_file.h"
#include "io/child.h"
#include "io/save.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

using Names = std::vector<std::string>;

/// Saves that are killed, and saves at one time.
class AtomicFileConcurrency : public ::testing::Test {
 protected:
  TestDirectory directory_;
  std::string path_ = directory_ / "model";
};

TEST_F(AtomicFileConcurrency, RemovesWhatAKilledSaveLeft) {
  write_file(path_, "old");
  Child child([&](auto done) {
    AtomicFile file(path_);
    file.write(pieces_of("half of the ne"));
    done();
  });
  ASSERT_EQ(directory_.names().size(), 2U);
  child.kill();
  EXPECT_EQ(directory_.names().size(), 2U);
  EXPECT_EQ(read_file(path_), "old");
  save(path_, "new");
  EXPECT_EQ(read_file(path_), "new");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileConcurrency, RemovesWhatManyKilledSavesLeft) {
  {
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 5; ++i) {
      children.push_back(std::make_unique<Child>([&](auto done) {
        AtomicFile file(path_);
        done();
      }));
    }
    EXPECT_EQ(directory_.names().size(), 5U);
  }
  save(path_, "new");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileConcurrency, LeavesALivingSaveOfAnotherProcessAlone) {
  const Child child([&](auto done) {
    AtomicFile file(path_);
    done();
  });
  const Names before = directory_.names();
  save(path_, "new");
  EXPECT_EQ(directory_.names(), (Names{before.front(), "model"}));
}

TEST_F(AtomicFileConcurrency, LeavesALivingSaveOfThisProcessAlone) {
  AtomicFile first(path_);
  first.write(pieces_of("first"));
  save(path_, "second");
  EXPECT_EQ(read_file(path_), "second");
  first.commit();
  EXPECT_EQ(read_file(path_), "first");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileConcurrency, LeavesOneWholeVersionOfMany) {
  std::set<std::string> versions;
  for (int i = 0; i < 8; ++i) {
    versions.insert(std::string(200'000 + i, static_cast<char>('a' + i)));
  }
  std::vector<std::thread> threads;
  for (const std::string& version : versions) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(save(path_, version), Commit::kRenamed);
        EXPECT_TRUE(versions.contains(read_file(path_)));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileConcurrency, LeavesOneWholeVersionOfManyProcesses) {
  const auto save_often = [&](char letter) {
    const std::string version(100'000, letter);
    for (int i = 0; i < 50; ++i) {
      save(path_, version);
    }
  };
  std::vector<pid_t> children;
  for (const char letter : {'a', 'b', 'c'}) {
    children.push_back(::fork());
    if (children.back() == 0) {
      ::_exit(run_in_child([&] { save_often(letter); }));
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const std::string contents = read_file(path_);
  EXPECT_EQ(contents, std::string(100'000, contents[0]));
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileConcurrency, IsNotDisturbedByAChildForkedInTheMiddle) {
  AtomicFile file(path_);
  file.write(pieces_of("ne"));
  EXPECT_EQ(run_in_child([&] { save(directory_ / "of_child", "x"); }), 0);
  file.write(pieces_of("w"));
  file.commit();
  EXPECT_EQ(read_file(path_), "new");
  EXPECT_EQ(directory_.names(), (Names{"model", "of_child"}));
}

}  // namespace
}  // namespace torch_safetensors::io
