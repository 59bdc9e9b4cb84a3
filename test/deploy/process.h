#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

// What the test programs ask of their own process. They get paths in the environment, so that each can be run
// by hand:
//   DATA       a folder to read from and write to
//   LIBRARIES  copies of libtorch_safetensors.so to dlopen first, in this order, separated by colons

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

inline std::string data(const std::string& name) { return environment("DATA") + "/" + name; }

/// The files mapped into this process whose name holds `part`.
inline std::set<std::string> mapped_files(const std::string& part) {
  std::set<std::string> files;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t path = line.find('/');
    if (path != std::string::npos &&
        std::filesystem::path(line.substr(path)).filename().string().find(part) != std::string::npos) {
      files.insert(line.substr(path));
    }
  }
  return files;
}

/// Checks at the end of each suite, when everything that could bring Python in has run.
inline void expect_no_python() {
  EXPECT_EQ(mapped_files("libpython"), std::set<std::string>());
  EXPECT_EQ(mapped_files("libtorch_python"), std::set<std::string>());
  EXPECT_NE(mapped_files("libtorch_cpu"), std::set<std::string>());  // the test looks at the right thing
}
