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
#include "tensors/lock_wait.h"
#include "tensors/open_file.h"
#include "tensors/source.h"
#include "tensors/undo_file.h"
#include "torch_safetensors/replace.h"

namespace torch_safetensors {
namespace tensors {
namespace {

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

/// Puts back what the undo file has.
void put_back(io::InPlaceFile& target, const std::string& filename) {
  const OpenFile file(filename, "pread");
  const Undo undo = load_undo(target, file);
  overwrite(target, place_of(file, *undo.entry), undo.tensor, undo.recorded);
}

bool recover_locked(io::InPlaceFile& target, const std::string& filename) {
  if (!target.has(kUndoSuffix)) {
    return false;
  }
  put_back(target, filename);
  target.remove(kUndoSuffix);
  target.flush_directory();
  return true;
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

/// Removes the undo file of what was put back, as far as that goes: there is another error to be told of, and
/// the undo file does no harm.
void remove_and_flush(const io::InPlaceFile& target) noexcept {
  target.discard(kUndoSuffix);
  try {
    target.flush_directory();
  } catch (const std::exception&) {
  }
}

/// Writes the new values and removes the undo file, or puts the old ones back.
void overwrite_or_undo(io::InPlaceFile& target, const std::string& filename, const Place& place,
                       const at::Tensor& tensor, const std::string& digits) {
  try {
    overwrite(target, place, tensor, digits);
    target.remove(kUndoSuffix);
  } catch (const OsError& error) {
    try {
      put_back(target, filename);
    } catch (const std::exception&) {
      const int number = error.error_number();
      io::throw_os_error(number,
                         io::os_error_text(number) + "; the tensor is neither the old nor the new one now: " +
                             io::quoted_path(target.beside(kUndoSuffix)) +
                             " has the old one, which recover puts back",
                         decode_filename(filename));
    }
    remove_and_flush(target);
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
  io::InPlaceFile target(decode_filename(filename), on_lock_wait);
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
  save_undo(target, {name, file.read(entry, at::kCPU)}, place.recorded);
  overwrite_or_undo(target, filename, place, values, place.digits ? digits_of(entry, values) : "");
}

bool recover(const std::string& filename) {
  const std::string path = tensors::decode_filename(filename);
  if (io::find_save_target(path).is_shared) {
    return false;  // where nothing is ever replaced
  }
  io::InPlaceFile target(path, tensors::on_lock_wait);
  return tensors::recover_locked(target, filename);
}

}  // namespace torch_safetensors
