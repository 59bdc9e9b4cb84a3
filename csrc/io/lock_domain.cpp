#include "io/lock_domain.h"

#include <unistd.h>

#include <array>
#include <fstream>

#include "io/hash_digits.h"
#include "io/remote_file_system.h"

namespace torch_safetensors::io {
namespace {

/// Containers of one host have it in common, as they have the kernel that keeps the locks.
std::string running_kernel() {
  std::string id;
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  if (std::getline(file, id) && !id.empty()) {
    return id;
  }
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

std::string lock_domain(const std::string& directory) {
  if (!is_on_remote_file_system(directory)) {
    return {};
  }
  static const std::string here = hash_digits(running_kernel());
  return here;
}

}  // namespace torch_safetensors::io
