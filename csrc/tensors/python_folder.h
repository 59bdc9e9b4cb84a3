#pragma once

#include <torch/custom_class.h>

#include <memory>
#include <string>

#include "io/folder_lock.h"

namespace torch_safetensors::tensors {

// What the Python package needs of the folders that checkpoints are saved to. Folders as operators pass
// filenames.

/// `torch.classes.safetensors._FolderLock`: keeps other saves to a folder out until it is released.
class PythonFolderLock : public torch::CustomClassHolder {
 public:
  /// Waits (io::FolderLock).
  explicit PythonFolderLock(const std::string& folder);

  void release() { lock_.reset(); }

 private:
  std::unique_ptr<io::FolderLock> lock_;
};

/// Waits until the names in a folder are on the disk. Throws OsError.
void flush_folder(const std::string& folder);

/// Removes what killed saves left in a folder.
void remove_dead_files(const std::string& folder);

}  // namespace torch_safetensors::tensors
