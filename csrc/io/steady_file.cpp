#include "io/steady_file.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <optional>
#include <utility>

#include "io/os_error.h"

namespace torch_safetensors::io {
namespace {

/// Descriptors that are kept though their owners could do without.
std::atomic<size_t> kept_now{0};

size_t most_kept() {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return kMaxKept;
  }
  return std::min<size_t>(kMaxKept, limit.rlim_cur / 4);
}

bool take_slot() {
  if (kept_now.fetch_add(1) < most_kept()) {
    return true;
  }
  --kept_now;
  return false;
}

/// Nothing where the name leads nowhere; what else keeps it from being opened is no sign of another version.
std::optional<File> reopen(const std::string& path) {
  try {
    return std::make_optional<File>(path);
  } catch (const OsError& error) {
    if (error.error_number() != ENOENT && error.error_number() != ENOTDIR) {
      throw;
    }
    return std::nullopt;
  }
}

}  // namespace

SteadyFile::SteadyFile(File file)
    : path_(file.path()), identity_(file.identity()), kept_(std::make_shared<const File>(std::move(file))) {}

SteadyFile::SteadyFile(File file, std::shared_ptr<const File> index)
    : path_(file.path()), identity_(file.identity()), index_(std::move(index)), has_slot_(take_slot()) {
  if (has_slot_) {
    kept_ = std::make_shared<const File>(std::move(file));
  }
}

SteadyFile::~SteadyFile() {
  if (has_slot_) {
    --kept_now;
  }
}

std::shared_ptr<const File> SteadyFile::open() const {
  if (kept_) {
    return kept_;
  }
  std::optional<File> file = reopen(path_);
  if (!file || !file->identity().has_content_of(identity_) || !leads_to(index_->path(), index_->identity())) {
    throw_replaced(path_);
  }
  return std::make_shared<const File>(*std::move(file));
}

void throw_replaced(const std::string& path) {
  throw_os_error(ESTALE, "the file was replaced since it was opened; open it again", path);
}

}  // namespace torch_safetensors::io
