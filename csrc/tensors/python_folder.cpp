#include "tensors/python_folder.h"

#include "io/disk_flush.h"
#include "io/temporary_file.h"
#include "tensors/filename.h"
#include "tensors/lock_wait.h"

namespace torch_safetensors::tensors {

PythonFolderLock::PythonFolderLock(const std::string& folder)
    : lock_(std::make_unique<io::FolderLock>(decode_filename(folder), on_lock_wait)) {}

void flush_folder(const std::string& folder) {
  const std::string path = decode_filename(folder);
  io::flush_directory(path, path);
}

void remove_dead_files(const std::string& folder) { io::remove_dead_files(decode_filename(folder)); }

}  // namespace torch_safetensors::tensors
