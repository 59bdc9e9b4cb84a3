#pragma once

#include <gtest/gtest.h>

#include <string>

#include "torch_safetensors/errors.h"

namespace torch_safetensors::io {

/// Calls `action`, which shall throw OsError with that number and exactly that message.
template <typename Action>
void expect_os_error(int number, const std::string& message, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected " << message;
  } catch (const OsError& error) {
    EXPECT_EQ(error.error_number(), number);
    EXPECT_EQ(error.what(), message);
  }
}

}  // namespace torch_safetensors::io
