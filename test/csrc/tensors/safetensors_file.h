#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "io/test_directory.h"

namespace torch_safetensors {

/// Writes a file of that header and data.
inline std::string write_safetensors(const std::string& path, std::string_view header,
                                     std::string_view data) {
  const uint64_t size = header.size();
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
  return io::write_file(path, bytes.append(header).append(data));
}

/// Expects `act` to throw an `Error` whose text has `text` in it.
template <typename Error, typename Act>
void expect_error(std::string_view text, Act act) {
  try {
    act();
    ADD_FAILURE() << "no error with " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find(text), std::string_view::npos) << error.what();
  }
}

}  // namespace torch_safetensors
