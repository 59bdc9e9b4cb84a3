#include "tensors/checksums.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "format/text.h"
#include "io/progress.h"
#include "io/run_parallel.h"
#include "tensors/device_save.h"
#include "tensors/source.h"
#include "tensors/storage.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {
namespace {

/// What is read at a time: within the processor's cache.
constexpr size_t kBlock = size_t{1} << 20;

/// So many tensors are one piece of work for a thread: a thread costs more than the checksum of a small one.
constexpr size_t kStep = 64;

/// Below this, starting threads costs more than they save.
constexpr size_t kMinForThreads = size_t{4} << 20;

/// Calls `run` with each index, in parallel where there is much to do. Large tensors are pieces of work of
/// their own.
void for_each_index(size_t count, const std::function<size_t(size_t)>& nbytes_of,
                    const std::function<void(size_t)>& run) {
  std::vector<size_t> begins;
  size_t total = 0;
  size_t in_piece = kBlock;
  for (size_t i = 0; i < count; ++i) {
    if (in_piece >= kBlock || i - begins.back() >= kStep) {
      begins.push_back(i);
      in_piece = 0;
    }
    in_piece += nbytes_of(i);
    total += nbytes_of(i);
  }
  begins.push_back(count);
  io::run_parallel(begins.size() - 1, total < kMinForThreads ? 1 : io::default_threads(), [&](size_t piece) {
    for (size_t i = begins[piece]; i < begins[piece + 1]; ++i) {
      run(i);
    }
  });
}

/// Of tensors that are read one after the other, piece by piece.
class ChecksumsInTurn {
 public:
  ChecksumsInTurn(std::span<const format::TensorSpec> specs, std::vector<format::Checksum>& checksums)
      : specs_(specs), checksums_(checksums) {}

  void add(size_t index, std::span<const std::byte> bytes) {
    if (!builder_ || index != index_) {
      finish();
      builder_.emplace(specs_[index].name, specs_[index].dtype, specs_[index].shape);
      index_ = index;
    }
    builder_->add(bytes);
  }

  void finish() {
    if (builder_) {
      checksums_[index_] = builder_->build();
    }
  }

 private:
  std::span<const format::TensorSpec> specs_;
  std::vector<format::Checksum>& checksums_;
  std::optional<format::ChecksumBuilder> builder_;
  size_t index_ = 0;
};

/// Compares all entries; `checksum(i)` is that of the i-th as it is now, and `fault` what another one means.
void verify(const std::string& source, const format::Header& header,
            std::span<const format::TensorEntry* const> entries, std::string_view fault,
            const std::function<format::Checksum(size_t)>& checksum) {
  const std::vector<format::Checksum> recorded = recorded_of(source, header, entries);
  std::vector<format::Checksum> found(entries.size());
  io::Progress* const progress = io::Progress::current();
  for_each_index(
      entries.size(), [&](size_t i) { return entries[i]->nbytes(); },
      [&](size_t i) {
        found[i] = checksum(i);
        if (progress != nullptr) {
          progress->advance(entries[i]->nbytes());
        }
      });
  compare_checksums(source, entries, recorded, found, fault);
}

}  // namespace

std::vector<format::Checksum> checksums_of(std::span<const NamedTensor> tensors,
                                           std::span<const format::TensorSpec> specs) {
  std::vector<format::Checksum> checksums(tensors.size());
  const auto nbytes_here = [&](size_t i) {
    return lies_here(tensors[i].tensor) ? tensors[i].tensor.nbytes() : 0;
  };
  for_each_index(tensors.size(), nbytes_here, [&](size_t i) {
    const at::Tensor& tensor = tensors[i].tensor;
    if (lies_here(tensor) || tensor.numel() == 0) {
      format::ChecksumBuilder builder(specs[i].name, specs[i].dtype, specs[i].shape);
      builder.add(readable_bytes(tensor));
      checksums[i] = builder.build();
    }
  });
  std::vector<size_t> elsewhere;
  ChecksumsInTurn in_turn(specs, checksums);
  TensorReader reader(
      [&](size_t number, std::span<const std::byte> bytes) { in_turn.add(elsewhere[number], bytes); });
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!lies_here(tensors[i].tensor)) {
      elsewhere.push_back(i);
      reader.add(tensors[i].tensor);
    }
  }
  reader.flush();
  in_turn.finish();
  return checksums;
}

std::optional<format::Metadata> with_checksums(
    const std::optional<format::Metadata>& metadata, std::span<const format::TensorSpec> specs,
    const std::optional<std::vector<format::Checksum>>& checksums) {
  const auto is_recorded = [](const auto& pair) { return pair.first == format::kChecksumsKey; };
  if (!checksums && !(metadata && std::ranges::any_of(metadata->pairs(), is_recorded))) {
    return metadata;
  }
  format::MetadataBuilder builder;
  if (metadata) {
    for (const auto& pair : metadata->pairs()) {
      if (!is_recorded(pair)) {
        builder.add(pair.first, pair.second);
      }
    }
  }
  if (checksums) {
    std::vector<std::string_view> names;
    for (const format::TensorSpec& spec : specs) {
      names.push_back(spec.name);
    }
    builder.add(format::kChecksumsKey, format::join_checksums(names, *checksums));
  }
  return std::move(builder).build();
}

format::Checksum checksum_of(const format::TensorEntry& entry, std::span<const std::byte> bytes) {
  format::ChecksumBuilder builder(entry.name, entry.dtype, entry.shape);
  builder.add(bytes);
  return builder.build();
}

std::vector<format::Checksum> recorded_of(const std::string& source, const format::Header& header,
                                          std::span<const format::TensorEntry* const> entries) {
  std::vector<format::Checksum> by_name;
  try {
    by_name = format::recorded_checksums(header);
  } catch (const SafetensorError& error) {
    throw_malformed(source, error.what());
  }
  std::vector<const format::Checksum*> of_entry(header.tensors().size());
  for (size_t rank = 0; rank < by_name.size(); ++rank) {
    of_entry[header.by_name()[rank]] = &by_name[rank];
  }
  std::vector<format::Checksum> recorded;
  recorded.reserve(entries.size());
  for (const format::TensorEntry* entry : entries) {
    recorded.push_back(*of_entry[entry - header.tensors().data()]);
  }
  return recorded;
}

void compare_checksums(const std::string& source, std::span<const format::TensorEntry* const> entries,
                       std::span<const format::Checksum> recorded, std::span<const format::Checksum> found,
                       std::string_view fault) {
  std::vector<size_t> damaged;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (found[i] != recorded[i]) {
      damaged.push_back(i);
    }
  }
  if (!damaged.empty()) {
    const size_t first = damaged.front();
    const std::string others = damaged.size() == 1 ? ""
                                                   : "; " + std::to_string(damaged.size()) + " tensors of " +
                                                         std::to_string(entries.size()) + " differ";
    throw_malformed(source, "tensor " + format::in_quotes(entries[first]->name) + ": " + std::string(fault) +
                                ": its checksum is " + format::to_hex(found[first]) + " but " +
                                format::to_hex(recorded[first]) + " was saved" + others);
  }
}

void verify_tensors(const std::string& source, const format::Header& header,
                    std::span<const format::TensorEntry* const> entries, std::span<const at::Tensor> tensors,
                    std::string_view fault) {
  verify(source, header, entries, fault,
         [&](size_t i) { return checksum_of(*entries[i], readable_bytes(tensors[i])); });
}

void verify_bytes(const std::string& source, const format::Header& header,
                  std::span<const format::TensorEntry* const> entries, const ByteSource& bytes,
                  uint64_t position) {
  verify(source, header, entries, kDamaged, [&](size_t i) {
    const format::TensorEntry& entry = *entries[i];
    format::ChecksumBuilder builder(entry.name, entry.dtype, entry.shape);
    std::vector<std::byte> block(std::min<uint64_t>(entry.nbytes(), kBlock));
    for (uint64_t begin = entry.begin; begin < entry.end; begin += block.size()) {
      const io::ReadRange range{position + begin,
                                std::span(block).first(std::min<uint64_t>(block.size(), entry.end - begin))};
      bytes.read({&range, 1});
      builder.add(range.into);
    }
    return builder.build();
  });
}

}  // namespace torch_safetensors::tensors
