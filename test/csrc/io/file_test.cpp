#include "io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

void expect_refused(int number, const std::string& text, const std::string& path) {
  const size_t before = open_descriptors();
  expect_os_error(number, "[Errno " + std::to_string(number) + "] " + text + ": '" + path + "'",
                  [&] { File file(path); });
  EXPECT_EQ(open_descriptors(), before);
}

std::string read_at(const File& file, uint64_t offset, size_t size) {
  std::string bytes(size, '?');
  file.read_at(offset, writable(bytes));
  return bytes;
}

TEST(File, HasPathAndSize) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", "12345"));
  EXPECT_EQ(file.path(), directory / "f");
  EXPECT_EQ(file.size(), 5U);
}

TEST(File, RefusesWhatDoesNotExist) {
  const TestDirectory directory;
  expect_refused(ENOENT, "No such file or directory", directory / "f");
  expect_refused(ENOENT, "No such file or directory", "");
}

TEST(File, RefusesADirectory) { expect_refused(EISDIR, "Is a directory", "/"); }

TEST(File, RefusesAFileAsADirectory) {
  const TestDirectory directory;
  expect_refused(ENOTDIR, "Not a directory", write_file(directory / "f", "") + "/");
}

TEST(File, RefusesALongName) {
  expect_refused(ENAMETOOLONG, "File name too long", "/" + std::string(256, 'n'));
}

TEST(File, RefusesADevice) { expect_refused(EINVAL, "not a regular file", "/dev/null"); }

TEST(File, RefusesAFifoWithoutWaitingForAWriter) {
  const TestDirectory directory;
  const std::string path = directory / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  expect_refused(EINVAL, "not a regular file", path);
}

TEST(File, RefusesASocket) {
  const TestDirectory directory;
  const std::string path = directory / "s";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  expect_refused(EINVAL, "not a regular file", path);
}

TEST(File, RefusesANulInThePath) {
  expect_os_error(EINVAL, "[Errno 22] embedded null byte: 'f\\x00'",
                  [] { File file(std::string("f\0", 2)); });
}

TEST(File, RefusesWhatMayNotBeRead) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "secret");
  ASSERT_EQ(::chmod(directory.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  EXPECT_EQ(run_unprivileged([&] { File file(path); }), EACCES);
}

TEST(File, OpensANameThatIsNotUtf8) {
  const TestDirectory directory;
  EXPECT_EQ(File(write_file(directory / "\xFF", "abc")).size(), 3U);
}

TEST(File, Moves) {
  const TestDirectory directory;
  const size_t before = open_descriptors();
  {
    File from(write_file(directory / "f", "12345"));
    const File to(std::move(from));
    EXPECT_EQ(read_at(to, 0, 5), "12345");
    EXPECT_EQ(to.path(), directory / "f");
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(File, IsClosedForOtherPrograms) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", ""));
  EXPECT_EQ(::fcntl(file.descriptor(), F_GETFD), FD_CLOEXEC);
}

TEST(File, ReadsAtAnyOffset) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", "0123456789"));
  EXPECT_EQ(read_at(file, 0, 10), "0123456789");
  EXPECT_EQ(read_at(file, 3, 4), "3456");
  EXPECT_EQ(read_at(file, 10, 0), "");
}

TEST(File, SaysWhereATruncatedFileEnded) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", pattern(500));
  const File file(path);
  ASSERT_EQ(::truncate(path.c_str(), 120), 0);
  const std::string text =
      "[Errno 5] file ended at byte 120 while reading up to byte 500: it was truncated after it was opened: "
      "'" +
      path + "'";
  expect_os_error(EIO, text, [&] { read_at(file, 0, 500); });
  expect_os_error(EIO, text, [&] { read_at(file, 300, 200); });
  EXPECT_EQ(read_at(file, 0, 120), pattern(120));
}

TEST(File, ReportsTheErrorOfARead) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", ""));
  expect_os_error(EINVAL, "[Errno 22] Invalid argument: '" + file.path() + "'",
                  [&] { read_at(file, uint64_t{1} << 63, 1); });
}

#if defined(F_SETLEASE)
TEST(File, WaitsForALeaseToBeGivenBack) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "12345");
  // As Samba does it: told by SIGIO that somebody wants the file, it lets go.
  Child samba([&](auto done) {
    static int descriptor;
    descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    std::signal(SIGIO, [](int) { ::fcntl(descriptor, F_SETLEASE, F_UNLCK); });
    if (::fcntl(descriptor, F_SETLEASE, F_WRLCK) == 0) {
      done();
    }
  });
  EXPECT_EQ(File(path).size(), 5U);
}
#endif

}  // namespace
}  // namespace torch_safetensors::io
