#include "tensors/stream_writer.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/faults.h"
#include "tensors/safetensors_file.h"
#include "torch_safetensors/writer.h"

namespace torch_safetensors {
namespace {

using Names = std::vector<std::string>;

class WriterTest : public ::testing::Test {
 protected:
  WriterTest() {
    tensors_.insert("bytes", at::arange(5, at::kByte));
    tensors_.insert("floats", at::randn({300, 7}));
    tensors_.insert("none", at::empty({0, 3}));
    tensors_.insert("one", at::scalar_tensor(3, at::kLong));
    metadata_.insert("a", "b");
  }

  /// What `save_file` makes of the same.
  std::string saved(bool checksum = false, int64_t alignment = 0) const {
    const std::string path = directory_ / "saved";
    save_file(tensors_, path, metadata_, false, checksum, alignment);
    const std::string bytes = io::read_file(path);
    std::filesystem::remove(path);
    return bytes;
  }

  void write_all(Writer& writer) const {
    for (const auto& item : tensors_) {
      writer.write(item.key(), item.value());
    }
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model";
  TensorDict tensors_;
  Metadata metadata_;
};

TEST_F(WriterTest, WritesWhatSaveFileWrites) {
  for (const bool checksum : {false, true}) {
    for (const int64_t alignment : {0, 64}) {
      TensorDict spec;
      for (const auto& item : tensors_) {
        spec.insert(item.key(), at::empty_like(item.value(), at::device(at::kMeta)));
      }
      Writer writer(path_, spec, metadata_, false, checksum, alignment);
      write_all(writer);
      writer.close();
      writer.close();
      EXPECT_TRUE(io::read_file(path_) == saved(checksum, alignment));
    }
  }
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(WriterTest, ListsWhatIsMissing) {
  io::write_file(path_, "old");
  Writer writer(path_, tensors_);
  writer.write("floats", tensors_.at("floats"));
  expect_error<c10::ValueError>("3 of 4 tensors were not written: 'bytes', 'none', 'one'",
                                [&] { writer.close(); });
  EXPECT_EQ(io::read_file(path_), "old");
  EXPECT_EQ(directory_.names(), Names{"model"});
  expect_error<c10::ValueError>("the writer was aborted when it could not be closed",
                                [&] { writer.write("one", tensors_.at("one")); });
}

TEST_F(WriterTest, RefusesWhatIsNotInTheSpec) {
  Writer writer(path_, tensors_, metadata_);
  expect_error<c10::ValueError>("tensor 'x': not in the spec, which has 4 tensors",
                                [&] { writer.write("x", at::ones({1})); });
  expect_error<c10::ValueError>("tensor 'one': the spec says Long [] but the tensor is Float [2]",
                                [&] { writer.write("one", at::ones({2})); });
  write_all(writer);
  expect_error<c10::ValueError>("tensor 'one': was written before",
                                [&] { writer.write("one", tensors_.at("one")); });
  writer.close();
  EXPECT_TRUE(io::read_file(path_) == saved());
}

TEST_F(WriterTest, PacksWhatIsNotContiguous) {
  const at::Tensor strided = at::arange(42, at::kFloat).view({6, 7}).t();
  tensors_.insert("strided", strided.contiguous());
  Writer writer(path_, tensors_, metadata_);
  writer.write("strided", strided);
  for (const char* const name : {"one", "none", "floats", "bytes"}) {
    writer.write(name, tensors_.at(name));
  }
  writer.close();
  EXPECT_TRUE(io::read_file(path_) == saved());
}

TEST_F(WriterTest, IsWrittenByManyThreads) {
  for (int i = 0; i < 200; ++i) {
    tensors_.insert("t" + std::to_string(i), at::full({i * 31}, i));
  }
  std::vector<std::string> names;
  for (const auto& item : tensors_) {
    names.push_back(item.key());
  }
  Writer writer(path_, tensors_, metadata_, false, true);
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (size_t index; (index = next++) < names.size();) {
        writer.write(names[index], tensors_.at(names[index]));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  writer.close();
  EXPECT_TRUE(io::read_file(path_) == saved(true));
}

TEST_F(WriterTest, IsAbortedByItsEnd) {
  {
    Writer writer(path_, tensors_);
    write_all(writer);
    Writer moved = std::move(writer);
    EXPECT_EQ(directory_.names().size(), 1);
  }
  EXPECT_EQ(directory_.names(), Names{});
}

TEST_F(WriterTest, IsAborted) {
  Writer writer(path_, tensors_);
  writer.abort();
  writer.abort();
  EXPECT_EQ(directory_.names(), Names{});
  expect_error<c10::ValueError>("the writer was aborted", [&] { writer.close(); });
}

TEST_F(WriterTest, IsLeftAloneByForkedChildren) {
  auto writer = std::make_unique<Writer>(path_, tensors_, metadata_);
  EXPECT_EQ(io::run_in_child([&] {
              expect_error<c10::ValueError>("belongs to the process that opened it",
                                            [&] { writer->write("one", tensors_.at("one")); });
              writer->abort();
              writer.reset();
              ::_exit(testing::Test::HasFailure());
            }),
            0);
  write_all(*writer);
  writer->close();
  EXPECT_TRUE(io::read_file(path_) == saved());
}

TEST_F(WriterTest, TellsOfProgress) {
  uint64_t done = 0;
  uint64_t total = 0;
  const ProgressGuard guard([&](uint64_t now, uint64_t all) {
    done = now;
    total = all;
  });
  Writer writer(path_, tensors_);
  writer.write("floats", tensors_.at("floats"));
  EXPECT_EQ(total, 300 * 7 * 4);
  EXPECT_EQ(done, total);
}

TEST_F(WriterTest, IsAbortedWhereAReportThrows) {
  Writer writer(path_, tensors_);
  {
    const ProgressGuard guard([](uint64_t, uint64_t) { throw std::runtime_error("stop"); });
    EXPECT_THROW(writer.write("floats", tensors_.at("floats")), std::runtime_error);
  }
  EXPECT_EQ(directory_.names(), Names{});
  expect_error<c10::ValueError>("the writer was aborted when tensor 'floats' could not be written",
                                [&] { writer.close(); });
}

#if defined(__linux__)

/// Returns when a thread of this process sleeps, as one that waits for a lock does and nothing else that it
/// is about to do.
void await_sleep(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  for (int seen = 0; seen < 3;) {
    const std::string status = io::read_file(path);
    const size_t name_end = status.rfind(')');
    seen = name_end != std::string::npos && status[name_end + 2] == 'S' ? seen + 1 : 0;
    std::this_thread::yield();
  }
}

TEST_F(WriterTest, IsNotPublishedByACloseThatWaitsForAWriteThatFails) {
  for (const bool checksum : {false, true}) {
    io::write_file(path_, "old");
    Writer writer(path_, tensors_, std::nullopt, false, checksum);
    for (const char* const name : {"bytes", "none", "one"}) {
      writer.write(name, tensors_.at(name));
    }
    std::promise<void> is_writing;
    std::promise<pid_t> is_closing;
    std::thread writes([&] {
      const ProgressGuard guard([&](uint64_t, uint64_t) {
        is_writing.set_value();
        await_sleep(is_closing.get_future().get());
        throw std::runtime_error("stop");
      });
      EXPECT_THROW(writer.write("floats", tensors_.at("floats")), std::runtime_error);
    });
    is_writing.get_future().wait();
    is_closing.set_value(static_cast<pid_t>(::syscall(SYS_gettid)));
    expect_error<c10::ValueError>("the writer was aborted when tensor 'floats' could not be written",
                                  [&] { writer.close(); });
    writes.join();
    EXPECT_EQ(io::read_file(path_), "old");
    EXPECT_EQ(directory_.names(), Names{"model"});
    expect_error<c10::ValueError>("the writer was aborted when",
                                  [&] { writer.write("floats", tensors_.at("floats")); });
  }
}

#endif

TEST_F(WriterTest, CanOnlyAbortAfterAWriteThatFailed) {
  // Some threads write well, one fails, and all close: whatever comes first, nothing is published.
  for (int round = 0; round < 20; ++round) {
    Writer writer(path_, tensors_);
    std::vector<std::thread> threads;
    for (const char* const name : {"bytes", "floats", "none", "one"}) {
      threads.emplace_back([&, name] {
        const ProgressGuard guard([&](uint64_t, uint64_t) {
          if (name == std::string("floats")) {
            throw std::runtime_error("stop");
          }
        });
        EXPECT_ANY_THROW({
          writer.write(name, tensors_.at(name));
          writer.close();
        });
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(directory_.names(), Names{});
  }
}

TEST_F(WriterTest, IsClosedWhereTheNewFileIsInPlace) {
  const io::FaultsGuard guard;
  Writer writer(path_, tensors_, metadata_, /*fsync=*/true);
  write_all(writer);
  io::faults.fsync_directory = EIO;
  expect_error<OsError>("the new file is in place, but may not survive a power failure",
                        [&] { writer.close(); });
  EXPECT_TRUE(io::read_file(path_) == saved());
  writer.close();
  writer.abort();
  EXPECT_TRUE(io::read_file(path_) == saved());
  expect_error<c10::ValueError>("the writer is closed", [&] { writer.write("one", tensors_.at("one")); });
}

}  // namespace
}  // namespace torch_safetensors
