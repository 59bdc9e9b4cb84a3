#include "io/vectored_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

using Pieces = std::vector<std::span<const std::byte>>;

std::string written(const Pieces& pieces) {
  const TestDirectory directory;
  const Descriptor file(::open((directory / "f").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  write_all(file.get(), pieces, "f");
  return read_file(directory / "f");
}

Pieces cut(const std::string& text, size_t size) {
  Pieces pieces;
  for (size_t begin = 0; begin < text.size(); begin += size) {
    pieces.push_back(readable(std::string_view(text).substr(begin, size)));
  }
  return pieces;
}

TEST(WriteAll, WritesNothing) {
  EXPECT_EQ(written({}), "");
  EXPECT_EQ(written({{}, {}}), "");
}

TEST(WriteAll, PassesOverEmptyPieces) {
  EXPECT_EQ(written({{}, readable("ab"), {}, readable("c"), {}}), "abc");
}

TEST(WriteAll, WritesMorePiecesThanOneCallTakes) {
  const std::string text = pattern(5000);
  EXPECT_EQ(written(cut(text, 1)), text);
  const std::string longer = pattern(3 * kMaxPieces * 4096);
  EXPECT_TRUE(written(cut(longer, 4096)) == longer);
}

TEST(WriteAll, WritesTinyPiecesOfMoreThanOneBuffer) {
  const std::string text = pattern(3'000'000);
  EXPECT_TRUE(written(cut(text, 7)) == text);
  EXPECT_TRUE(written(cut(text, 4095)) == text);
}

TEST(WriteAll, GoesOnAfterAPartialWrite) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe(ends.data()), 0);
  const Descriptor out(ends[0]);
  const Descriptor in(ends[1]);
  ASSERT_EQ(::fcntl(in.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string text = pattern(1'000'000);
  // More than a pipe holds: the second call finds it full.
  expect_os_error(EAGAIN, "[Errno " + std::to_string(EAGAIN) + "] Resource temporarily unavailable: 'p'",
                  [&] { write_all(in.get(), cut(text, 999), "p"); });
  std::string got(text.size(), '\0');
  const ssize_t count = ::read(out.get(), got.data(), got.size());
  ASSERT_GT(count, 0);
  EXPECT_EQ(got.substr(0, static_cast<size_t>(count)), text.substr(0, static_cast<size_t>(count)));
}

TEST(WriteAll, WritesMoreThanTwoGigabytesAtOnce) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer keeps four times as much of shadow memory";
#endif
  constexpr size_t kSize = size_t{5} << 30;
  void* const memory = ::mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const Descriptor null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  const Pieces pieces{readable("x"), {static_cast<const std::byte*>(memory), kSize}};
  EXPECT_NO_THROW(write_all(null.get(), pieces, "/dev/null"));
  ::munmap(memory, kSize);
}

TEST(WriteAll, NamesThePathInItsErrors) {
  const Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  expect_os_error(EBADF, "[Errno 9] Bad file descriptor: 'p'",
                  [&] { write_all(null.get(), Pieces{readable("x")}, "p"); });
}

TEST(ReadScattered, FillsPiecesInOrder) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", "0123456789"));
  std::string a(3, '?'), b(1, '?'), c(4, '?');
  std::vector<iovec> pieces{{a.data(), a.size()}, {b.data(), b.size()}, {c.data(), c.size()}};
  read_scattered(file, 2, pieces);
  EXPECT_EQ(a + "|" + b + "|" + c, "234|5|6789");
}

TEST(ReadScattered, SaysWhereTheFileEnded) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", "0123456789"));
  std::string a(6, '?'), b(6, '?');
  std::vector<iovec> pieces{{a.data(), a.size()}, {b.data(), b.size()}};
  expect_os_error(EIO,
                  "[Errno 5] file ended at byte 10 while reading up to byte 12: "
                  "it was truncated after it was opened: '" +
                      file.path() + "'",
                  [&] { read_scattered(file, 0, pieces); });
}

TEST(WriteAt, WritesToItsPlace) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "0123456789");
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  write_at(file.get(), 3, readable("abc"), path);
  write_at(file.get(), 12, readable("xy"), path);
  write_at(file.get(), 1, {}, path);
  EXPECT_EQ(read_file(path), std::string("012abc6789\0\0xy", 14));
}

TEST(WriteAt, SurvivesWritesThatAreCutShortOrInterrupted) {
  const FaultsGuard guard;
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "");
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = pattern(10'000);
  faults.pwrite_cuts = 3;
  faults.pwrite_interrupts = 2;
  write_at(file.get(), 0, readable(text), path);
  EXPECT_EQ(read_file(path), text);
}

TEST(WriteAt, NamesTheFile) {
  const FaultsGuard guard;
  faults.pwrite = ENOSPC;
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "");
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  expect_os_error(ENOSPC, "[Errno 28] No space left on device: '" + path + "'",
                  [&] { write_at(file.get(), 0, readable("abc"), path); });
}

}  // namespace
}  // namespace torch_safetensors::io
