#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "stable/call.h"
#include "tensors/safetensors_file.h"

namespace torch_safetensors::stable {
namespace {

/// Large enough to be read and written by several threads.
constexpr int64_t kElements = 3 << 20;

TEST(StableThreads, LoadWhileOthersSave) {
  const io::TestDirectory directory;
  const std::string path = directory / "model";
  save_tensors(path, {"a", "b"}, {at::zeros({kElements}), at::zeros({7})});
  std::atomic<int> mixed = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 5; ++i) {
        if (thread == 0) {
          const at::Tensor value = at::full({}, i + 1, at::kFloat);
          save_tensors(path, {"a", "b"},
                       {value.expand({kElements}).contiguous(), value.expand({7}).contiguous()});
          continue;
        }
        const auto loaded = load_tensors(path, {"a", "b"}, thread == 1 ? "mmap" : "pread");
        const float first = loaded[1][0].item<float>();
        mixed += !at::equal(loaded[0], at::full({kElements}, first));
        at::Tensor out = at::empty({7});
        call("load_into", path, "b", out, kNone);
        mixed += !at::equal(out, out[0].expand({7}));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(mixed, 0);
}

}  // namespace
}  // namespace torch_safetensors::stable
