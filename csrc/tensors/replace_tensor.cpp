#include "tensors/replace_tensor.h"

#include <cstring>
#include <optional>

#include "format/checksum.h"
#include "format/text.h"
#include "io/in_place_file.h"
#include "io/mapped_here.h"
#include "io/os_error.h"
#include "tensors/byte_range.h"
#include "tensors/device_save.h"
#include "tensors/filename.h"
#include "tensors/open_file.h"
#include "tensors/source.h"
#include "torch_safetensors/replace.h"

namespace torch_safetensors {
namespace tensors {
namespace {

constexpr std::string_view kUndo = ".undo";

/// The metadata of an undo file: what it is, which file it belongs to, and the checksum recorded there.
constexpr std::string_view kPurposeKey = "torch_safetensors.undo";
constexpr std::string_view kPurpose =
    "what replace_tensor was overwriting; torch_safetensors.recover puts it back";
constexpr std::string_view kFileKey = "torch_safetensors.undo.file";
constexpr std::string_view kChecksumKey = "torch_safetensors.undo.checksum";

/// Where a file has a tensor's bytes, and the digits of its checksum if it records any.
struct Place {
  uint64_t bytes;
  std::optional<uint64_t> digits;
  std::string recorded;  // those digits
};

std::string json_of(const OpenFile& file, uint64_t size) {
  std::string json(size, '\0');
  const io::ReadRange range{format::kPrefixSize, std::as_writable_bytes(std::span(json))};
  file.bytes().read({&range, 1});
  return json;
}

Place place_of(const OpenFile& file, const format::TensorEntry& entry) {
  Place place{file.position(entry), std::nullopt, {}};
  const format::Header& header = file.header();
  if (!format::records_checksums(header)) {
    return place;
  }
  try {
    const std::string json = json_of(file, place.bytes - entry.begin - format::kPrefixSize);
    const uint64_t offset = format::find_recorded_checksum(json, header, entry);
    place.digits = format::kPrefixSize + offset;
    place.recorded = json.substr(offset, format::kChecksumDigits);
  } catch (const SafetensorError& error) {
    throw_malformed(file.source(), error.what());
  }
  return place;
}

/// The digits that belong to these bytes.
std::string digits_of(const format::TensorEntry& entry, const at::Tensor& tensor) {
  format::ChecksumBuilder builder(entry.name, entry.dtype, entry.shape);
  builder.add(readable_bytes(tensor));
  return format::to_hex(builder.build());
}

void overwrite(io::InPlaceFile& file, const Place& place, const at::Tensor& tensor,
               const std::string& digits) {
  file.write_at(place.bytes, readable_bytes(tensor));
  if (place.digits) {
    file.write_at(*place.digits, std::as_bytes(std::span(digits)));
  }
  file.flush();
}

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

/// The tensor of an undo file that belongs to `file`, which is open as `target`.
const format::TensorEntry& entry_to_undo(const io::InPlaceFile& target, const OpenFile& file,
                                         const OpenFile& undo) {
  const auto saved = undo.header().tensors();
  const format::TensorEntry* entry = saved.size() == 1 ? file.header().find(saved[0].name) : nullptr;
  const auto signature = [](const format::TensorEntry& of) { return format::signature(of.dtype, of.shape); };
  if (entry == nullptr || signature(*entry) != signature(saved[0]) ||
      metadata_value(undo, kFileKey) != target.identity()) {
    throw_malformed(file.source(), "its undo file " + format::in_quotes(undo.source()) +
                                       " is of another file: one that was replaced or copied since; if this "
                                       "one is whole, remove the undo file");
  }
  return *entry;
}

/// Puts back what the undo file has.
void put_back(io::InPlaceFile& target, const std::string& filename) {
  const OpenFile file(filename, "pread");
  try {
    const OpenFile undo(target.beside(kUndo), "pread");
    undo.verify();
    const format::TensorEntry& entry = entry_to_undo(target, file, undo);
    overwrite(target, place_of(file, entry), undo.read(undo.header().tensors()[0], at::kCPU),
              metadata_value(undo, kChecksumKey));
  } catch (const SafetensorError& error) {
    const std::string text = error.what();
    throw_malformed(file.source(), text.starts_with(file.source() + ": ")
                                       ? text.substr(file.source().size() + 2)
                                       : "its undo file: " + text);
  }
}

bool recover_locked(io::InPlaceFile& target, const std::string& filename) {
  if (!target.has(kUndo)) {
    return false;
  }
  put_back(target, filename);
  target.remove(kUndo);
  target.flush_directory();
  return true;
}

void save_undo(const io::InPlaceFile& target, const NamedTensor& old, const Place& place) {
  format::MetadataBuilder metadata;
  metadata.add(kPurposeKey, kPurpose);
  metadata.add(kFileKey, target.identity());
  if (place.digits) {
    metadata.add(kChecksumKey, place.recorded);
  }
  const SavePlan plan({old}, std::move(metadata).build(), /*checksum=*/true);
  const std::string path = target.beside(kUndo);
  // No more open than what it has a part of.
  io::AtomicFile file(path, /*durable=*/true, io::Order::kAppended, target.status().st_mode & 0777);
  plan.write_to(file);
  try {
    file.commit();
  } catch (const OsError&) {
    // It may be there, if not for certain after a crash; nothing needs it.
    target.discard(kUndo);
    throw;
  }
}

/// The values to be written, in memory that writing to the file does not change.
at::Tensor own_values(const io::InPlaceFile& target, NamedTensor named) {
  named = packed(std::move(named));
  const at::Tensor& tensor = named.tensor;
  const bool is_here = tensor.is_cpu() && !tensor.is_conj() && !tensor.is_neg();
  if (is_here && !io::is_mapped_here(target.path(), target.status())) {
    return tensor;
  }
  at::Tensor copy = empty_tensor(
      {tensor.scalar_type(), {tensor.sizes().begin(), tensor.sizes().end()}, tensor.nbytes()}, at::kCPU);
  std::span<std::byte> rest = writable_bytes(copy);
  emit_bytes(tensor, [&](std::span<const std::byte> piece) {
    if (!piece.empty()) {
      std::memcpy(rest.data(), piece.data(), piece.size());
      rest = rest.subspan(piece.size());
    }
  });
  return copy;
}

void check_type(const OpenFile& file, const format::TensorEntry& entry, const at::Tensor& tensor) {
  const TensorType type = tensor_type(file.source(), entry);
  TORCH_CHECK_VALUE(tensor.scalar_type() == type.dtype && tensor.sizes() == at::IntArrayRef(type.sizes),
                    file.source(), ": tensor ", format::in_quotes(entry.name), ": the file holds ",
                    type.dtype, " ", at::IntArrayRef(type.sizes), " but the tensor to replace it is ",
                    tensor.scalar_type(), " ", tensor.sizes());
}

/// Writes the new values and removes the undo file, or puts the old ones back.
void overwrite_or_undo(io::InPlaceFile& target, const std::string& filename, const Place& place,
                       const at::Tensor& tensor, const std::string& digits) {
  try {
    overwrite(target, place, tensor, digits);
    target.remove(kUndo);
  } catch (const OsError& error) {
    try {
      put_back(target, filename);
    } catch (const std::exception&) {
      const int number = error.error_number();
      io::throw_os_error(number,
                         io::os_error_text(number) + "; the tensor is neither the old nor the new one now: " +
                             io::quoted_path(target.beside(kUndo)) +
                             " has the old one, which recover puts back",
                         decode_filename(filename));
    }
    target.remove(kUndo);
    throw;
  }
  target.flush_directory();
}

}  // namespace

void replace_for_python(const std::string& filename, const std::string& name, const WrappedTensors& tensor) {
  replace_tensor(filename, name, to_named(name, {static_cast<int64_t>(name.size())}, tensor)[0].tensor);
}

}  // namespace tensors

void replace_tensor(const std::string& filename, const std::string& name, const at::Tensor& tensor) {
  using namespace tensors;
  io::InPlaceFile target(decode_filename(filename));
  recover_locked(target, filename);
  const OpenFile file(filename, "auto");
  const format::TensorEntry& entry = file.entry(name);
  check_type(file, entry, tensor);
  const at::Tensor values = own_values(target, {name, tensor});
  const Place place = place_of(file, entry);
  if (entry.nbytes() == 0) {
    return;
  }
  if (!target.is_in_place()) {
    throw_malformed(file.source(), "another file was put in its place meanwhile; call replace_tensor again");
  }
  save_undo(target, {name, file.read(entry, at::kCPU)}, place);
  overwrite_or_undo(target, filename, place, values, place.digits ? digits_of(entry, values) : "");
}

bool recover(const std::string& filename) {
  io::InPlaceFile target(tensors::decode_filename(filename));
  return tensors::recover_locked(target, filename);
}

}  // namespace torch_safetensors
