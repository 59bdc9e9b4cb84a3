#pragma once

#include <string>

namespace torch_safetensors::io {

/// Who holds the lock (flock) of an open file, for messages: `process 1234 (python)`, `another thread of this
/// process`, or `another process` where the system does not tell, as of another host.
std::string lock_holder(int descriptor);

}  // namespace torch_safetensors::io
