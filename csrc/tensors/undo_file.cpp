#include "tensors/undo_file.h"

#include "format/text.h"
#include "tensors/save_plan.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

/// Its metadata: what it is, which file it belongs to, and the checksum recorded there.
constexpr std::string_view kPurposeKey = "torch_safetensors.undo";
constexpr std::string_view kPurpose =
    "what replace_tensor was overwriting; torch_safetensors.recover puts it back";
constexpr std::string_view kFileKey = "torch_safetensors.undo.file";
constexpr std::string_view kChecksumKey = "torch_safetensors.undo.checksum";

std::string metadata_value(const OpenFile& file, std::string_view wanted) {
  if (file.header().metadata()) {
    for (const auto& [key, value] : file.header().metadata()->pairs()) {
      if (key == wanted) {
        return std::string(value);
      }
    }
  }
  return {};
}

/// The entry of `file` that the undo file is about; null where they do not belong together.
const format::TensorEntry* entry_to_undo(const std::string& identity, const OpenFile& file,
                                         const OpenFile& undo) {
  const auto saved = undo.header().tensors();
  if (saved.size() != 1 || metadata_value(undo, kFileKey) != identity) {
    return nullptr;
  }
  const format::TensorEntry* entry = file.header().find(saved[0].name);
  const bool is_alike = entry != nullptr && format::signature(entry->dtype, entry->shape) ==
                                                format::signature(saved[0].dtype, saved[0].shape);
  return is_alike ? entry : nullptr;
}

}  // namespace

void save_undo(const io::InPlaceFile& target, const NamedTensor& old, const std::string& recorded) {
  format::MetadataBuilder metadata;
  metadata.add(kPurposeKey, kPurpose);
  metadata.add(kFileKey, target.identity());
  if (!recorded.empty()) {
    metadata.add(kChecksumKey, recorded);
  }
  const SavePlan plan({old}, std::move(metadata).build(), /*checksum=*/true);
  io::AtomicFile file(target.beside(kUndoSuffix), /*durable=*/true, io::Order::kAppended,
                      target.status().st_mode & 0777);
  plan.write_to(file);
  try {
    file.commit();
  } catch (const OsError&) {
    // It may be there, if not for certain after a power failure, and nothing needs it.
    target.discard(kUndoSuffix);
    throw;
  }
}

Undo load_undo(const io::InPlaceFile& target, const OpenFile& file) {
  Undo result{nullptr, {}, {}};
  try {
    const OpenFile undo(target.beside(kUndoSuffix), "pread");
    undo.verify();
    result.entry = entry_to_undo(target.identity(), file, undo);
    if (result.entry != nullptr) {
      result.tensor = undo.read(undo.header().tensors()[0], at::kCPU);
      result.recorded = metadata_value(undo, kChecksumKey);
    }
  } catch (const SafetensorError& error) {
    throw_malformed(file.source(), std::string("its undo file: ") + error.what());
  }
  if (result.entry == nullptr) {
    throw_malformed(file.source(), "its undo file " + format::in_quotes(target.beside(kUndoSuffix)) +
                                       " is of another file: one that was replaced or copied since; if this "
                                       "one is whole, remove the undo file");
  }
  return result;
}

}  // namespace torch_safetensors::tensors
