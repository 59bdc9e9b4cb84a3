#include <ATen/Functions.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <set>
#include <thread>

#include "io/child.h"
#include "io/steady_file.h"
#include "tensors/checkpoint.h"
#include "tensors/safetensors_file.h"
#include "tensors/write_into.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

constexpr int kFiles = 4;
constexpr int kFloats = 1000;
constexpr char kIndex[] = "model.safetensors.index.json";

std::string name_of(int number) { return "t" + std::to_string(number); }

size_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

/// A folder in which checkpoints of several files take the place of each other, as save_sharded has them do.
class Folder {
 public:
  explicit Folder(int files = kFiles) : files_(files) { save(); }

  const std::string& path() const { return directory_.path(); }
  std::string index() const { return directory_ / kIndex; }
  std::string file(int number) const { return directory_ / file_name(version_, number); }

  /// Puts the next version in place; in every third one all tensors are in one file. All values of a version
  /// are its number.
  void save(bool may_be_single = false) {
    const int old = version_++;
    if (may_be_single && version_ % 3 == 0) {
      TensorDict all;
      for (int number = 0; number < files_; ++number) {
        all.insert(name_of(number), at::full({kFloats}, static_cast<float>(version_)));
      }
      save_file(all, directory_ / "model.safetensors");
      std::filesystem::remove(index());
    } else {
      save_files();
      std::filesystem::remove(directory_ / "model.safetensors");
    }
    for (int number = 0; number < files_; ++number) {
      std::filesystem::remove(directory_ / file_name(old, number));
    }
  }

 private:
  /// Few names, so that they are given again soon.
  static std::string file_name(int version, int number) {
    return std::to_string(version % 2) + "-" + std::to_string(number);
  }

  void save_files() {
    std::string map;
    for (int number = 0; number < files_; ++number) {
      TensorDict one;
      one.insert(name_of(number), at::full({kFloats}, static_cast<float>(version_)));
      save_file(one, file(number));
      map += (map.empty() ? "\"" : ",\"") + name_of(number) + "\":\"" + file_name(version_, number) + "\"";
    }
    io::write_file(directory_ / "new", R"({"weight_map":{)" + map + "}}");
    std::filesystem::rename(directory_ / "new", index());
  }

  const io::TestDirectory directory_;
  const int files_;
  int version_ = 0;
};

/// The number of the version that all tensors are of.
float version_of(const std::vector<at::Tensor>& tensors) {
  const auto version = tensors.front()[0].item<float>();
  for (const at::Tensor& tensor : tensors) {
    EXPECT_TRUE(at::equal(tensor, at::full_like(tensor, version)));
  }
  return version;
}

std::vector<at::Tensor> values_of(const TensorDict& dict) {
  std::vector<at::Tensor> values;
  for (const auto& item : dict) {
    values.push_back(item.value());
  }
  return values;
}

std::vector<std::string> all_names(int files = kFiles) {
  std::vector<std::string> names;
  for (int number = 0; number < files; ++number) {
    names.push_back(name_of(number));
  }
  return names;
}

class CheckpointVersions : public testing::TestWithParam<const char*> {};

TEST_P(CheckpointVersions, AreNeverMixedWhileOneSaves) {
  Folder folder;
  std::jthread saver([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      folder.save(/*may_be_single=*/true);
    }
  });
  const std::string path = folder.path();
  const std::vector<std::string> names = all_names();
  const char* const backend = GetParam();
  const std::function<std::vector<at::Tensor>()> ways[] = {
      [&] { return values_of(load_file(path, at::kCPU, backend)); },
      [&] { return load_tensors(path, names, at::kCPU, backend); },
      [&] {
        const Checkpoint file(path, backend);
        std::vector<at::Tensor> into(names.size());
        for (at::Tensor& tensor : into) {
          tensor = at::empty({kFloats});
        }
        load_into(file, names, into);
        return into;
      },
      [&] {
        const Checkpoint file(path, backend, Checkpoint::Opening::present());
        std::vector<at::Tensor> tensors;
        for (const std::string& name : names) {
          tensors.push_back(file.read(file.entry(name), at::kCPU));
        }
        return tensors;
      },
  };
  std::set<float> versions;
  for (int turn = 0; turn < 200; ++turn) {
    for (const auto& way : ways) {
      versions.insert(version_of(way()));
    }
  }
  EXPECT_GT(versions.size(), 2U);
}

TEST_P(CheckpointVersions, AHandleStaysWithTheOneItOpened) {
  Folder folder;
  const Checkpoint file(folder.path(), GetParam());
  folder.save();
  std::vector<at::Tensor> tensors = file.read_all(at::kCPU);
  EXPECT_EQ(version_of(tensors), 1);
  EXPECT_EQ(version_of(file.read_all(at::kCPU)), 1);
  load_into(file, all_names(), tensors);
  EXPECT_EQ(version_of(tensors), 1);
}

TEST_P(CheckpointVersions, OfVeryManyFilesAreReadWithFewDescriptors) {
  constexpr int kMany = 300;
  const Folder folder(kMany);
  EXPECT_EQ(io::run_in_child([&] {
              struct rlimit limit{64, 64};
              ::setrlimit(RLIMIT_NOFILE, &limit);
              const size_t before = open_descriptors();
              const Checkpoint file(folder.path(), GetParam());
              const size_t opened = open_descriptors();
              const std::vector<std::string> names = all_names(kMany);
              std::vector<at::Tensor> tensors = file.read_all(at::kCPU);
              const std::vector<at::Tensor> again = file.read_all(at::kCPU);
              load_into(file, names, tensors);
              file.will_need(file.entries());
              const bool is_read = version_of(tensors) == 1 && version_of(again) == 1;
              ::_exit(is_read && opened <= before + 17 && open_descriptors() == opened ? 0 : 1);
            }),
            0);
}

TEST_P(CheckpointVersions, WhatWasReplacedIsNotTakenForIt) {
  constexpr int kMany = static_cast<int>(io::kMaxKept) + 2;
  Folder folder(kMany);
  const Checkpoint file(folder.path(), GetParam());
  folder.save();
  folder.save();  // under the same names
  const std::vector<std::string> names{name_of(0), name_of(kMany - 1)};
  // Those that are kept open, or mapped, are read all the same; others are recognized.
  EXPECT_EQ(file.read(file.entry(names[0]), at::kCPU)[0].item<float>(), 1);
  size_t refused = 0;
  for (int number = 0; number < kMany; ++number) {
    at::Tensor out = at::zeros({kFloats});
    try {
      load_into(file, {name_of(number)}, {out});
      EXPECT_EQ(out[0].item<float>(), 1);
    } catch (const OsError& error) {
      EXPECT_EQ(error.error_number(), ESTALE);
      EXPECT_EQ(out[0].item<float>(), 0);
      ++refused;
    }
  }
  EXPECT_EQ(refused, 2U);
  EXPECT_EQ(version_of(values_of(load_file(folder.path(), at::kCPU, GetParam()))), 3);
}

TEST_P(CheckpointVersions, ANewOneWithTheSameIndexIsAnotherOne) {
  const io::TestDirectory directory;
  const Folder folder(2);
  const Checkpoint file(folder.index(), GetParam());
  EXPECT_TRUE(file.is_current());
  std::filesystem::copy_file(folder.index(), directory / "copy");
  std::filesystem::copy_file(directory / "copy", folder.path() + "/new");
  std::filesystem::rename(folder.path() + "/new", folder.index());
  EXPECT_FALSE(file.is_current());
}

INSTANTIATE_TEST_SUITE_P(Backends, CheckpointVersions, testing::Values("mmap", "pread"));

}  // namespace
}  // namespace torch_safetensors::tensors
