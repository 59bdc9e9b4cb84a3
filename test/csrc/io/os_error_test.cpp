#include "io/os_error.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "io/expect_os_error.h"

namespace torch_safetensors::io {
namespace {

TEST(OsError, ReadsAsPythons) {
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: 'a/path'",
                  [] { throw_os_error(ENOENT, "a/path"); });
}

TEST(OsError, HasATextOfOurs) {
  expect_os_error(EIO, "[Errno 5] it broke: 'path'", [] { throw_os_error(EIO, "it broke", "path"); });
}

TEST(OsError, NamesTheSystemsText) { EXPECT_EQ(os_error_text(EACCES), "Permission denied"); }

TEST(QuotedPath, LeavesTextAlone) {
  EXPECT_EQ(quoted_path(""), "''");
  EXPECT_EQ(quoted_path("dir/Modell \xC3\xA4 \xE2\x82\xAC \xF0\x9F\xA4\x97.st"),
            "'dir/Modell \xC3\xA4 \xE2\x82\xAC \xF0\x9F\xA4\x97.st'");
}

TEST(QuotedPath, EscapesQuotesAndBackslashes) { EXPECT_EQ(quoted_path("it's\\"), "'it\\'s\\\\'"); }

TEST(QuotedPath, EscapesControlCharacters) {
  EXPECT_EQ(quoted_path(std::string_view("\0\n\x1B[0m\x7F", 7)), "'\\x00\\x0a\\x1b[0m\\x7f'");
}

TEST(QuotedPath, EscapesWhatIsNotUtf8) {
  EXPECT_EQ(quoted_path("a\xFFz"), "'a\\xffz'");
  EXPECT_EQ(quoted_path("\x80"), "'\\x80'");           // a continuation alone
  EXPECT_EQ(quoted_path("\xC3"), "'\\xc3'");           // cut off
  EXPECT_EQ(quoted_path("\xE2\x82"), "'\\xe2\\x82'");  // cut off
  EXPECT_EQ(quoted_path("\xF0\x9F\xA4"), "'\\xf0\\x9f\\xa4'");
  EXPECT_EQ(quoted_path("\xC3z"), "'\\xc3z'");         // no continuation
  EXPECT_EQ(quoted_path("\xC0\xAF"), "'\\xc0\\xaf'");  // overlong
  EXPECT_EQ(quoted_path("\xE0\x80\xAF"), "'\\xe0\\x80\\xaf'");
  EXPECT_EQ(quoted_path("\xF0\x80\x80\xAF"), "'\\xf0\\x80\\x80\\xaf'");
  EXPECT_EQ(quoted_path("\xED\xA0\x80"), "'\\xed\\xa0\\x80'");           // a surrogate
  EXPECT_EQ(quoted_path("\xF4\x90\x80\x80"), "'\\xf4\\x90\\x80\\x80'");  // above U+10FFFF
}

}  // namespace
}  // namespace torch_safetensors::io
