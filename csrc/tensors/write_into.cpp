#include "tensors/write_into.h"

#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "format/text.h"
#include "io/parallel_read.h"
#include "io/progress.h"
#include "tensors/byte_range.h"
#include "tensors/device_load.h"
#include "tensors/source.h"
#include "tensors/with_checkpoint.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {
namespace tensors {
namespace {

bool records_gradient(const at::Tensor& tensor) {
  return at::GradMode::is_enabled() && tensor.requires_grad();
}

/// True where the bytes of the file are the bytes of the tensor.
bool is_direct(const at::Tensor& out, c10::ScalarType from) {
  return has_memory(out) && out.is_contiguous() && out.scalar_type() == from && !out.is_conj() &&
         !out.is_neg() && !out._is_zerotensor() && !records_gradient(out);
}

/// Targets that lie on devices, by device.
class DeviceTargets {
 public:
  explicit DeviceTargets(const TransferOptions& options) : options_(options) {}

  /// False where torch's own copy has to do it, since the backend has no lanes.
  bool add(ToFill target) {
    Group& group = group_of(target.out.device());
    if (group.lane) {
      group.outs.push_back(std::move(target));
    }
    return group.lane != nullptr;
  }

  void fill(const ByteSource& source) const {
    for (const auto& [device, lane, outs] : groups_) {
      if (!outs.empty()) {
        fill_through(*lane, source, outs, transfer_settings(device, options_));
      }
    }
  }

 private:
  struct Group {
    c10::Device device;
    std::shared_ptr<DeviceLane> lane;
    std::vector<ToFill> outs = {};
  };

  Group& group_of(c10::Device device) {
    for (Group& group : groups_) {
      if (group.device == device) {
        return group;
      }
    }
    return groups_.emplace_back(Group{device, DeviceLane::open(device)});
  }

  TransferOptions options_;
  std::vector<Group> groups_;
};

/// Where the bytes of a target are.
struct Source {
  Source(const Checkpoint& file, const Target& target)
      : file(&file.file_of(*target.entry)),
        begin(file.file_of(*target.entry).position(*target.entry)),
        position(file.position(*target.entry)),
        dtype(tensor_type(file.source_of(*target.entry), *target.entry).dtype),
        runs{target.entry->nbytes(), 1, 0, {}, {}} {
    if (target.part) {
      runs = strided_runs(*target.part, static_cast<int64_t>(c10::elementSize(dtype)));
    }
  }

  uint64_t nbytes() const { return runs.nbytes * runs.count; }

  const OpenFile* file;
  uint64_t begin;     ///< Of the tensor, in its file.
  uint64_t position;  ///< The same in `Checkpoint::bytes()`.
  c10::ScalarType dtype;
  StridedRuns runs;
};

/// What goes from files straight into the memory of tensors.
class DirectReads {
 public:
  DirectReads(const Checkpoint& checkpoint, const TransferOptions& options)
      : checkpoint_(checkpoint), options_(options), on_devices_(options) {}

  /// False where torch has to copy it.
  bool add(const Source& source, const at::Tensor& out) {
    const bool is_one_range = source.runs.count <= 1;
    if (!out.is_cpu()) {
      return is_one_range && on_devices_.add({out, source.position + source.runs.offset});
    }
    if (is_one_range) {
      ranges_[source.file].push_back({source.begin + source.runs.offset, writable_bytes(out)});
    } else {
      runs_[source.file].push_back({nullptr, source.begin, source.runs, writable_bytes(out)});
    }
    return true;
  }

  void run() {
    for (const auto& [file, ranges] : ranges_) {
      io::read_ranges(*file->file()->open(), ranges, nullptr, asked_threads(options_));
    }
    for (auto& [file, runs] : runs_) {
      const std::shared_ptr<const io::File> open = file->file()->open();
      for (RunsToRead& read : runs) {
        read.file = open.get();
      }
      read_runs_parallel(runs);
    }
    on_devices_.fill(checkpoint_.bytes());
  }

 private:
  const Checkpoint& checkpoint_;
  TransferOptions options_;
  std::map<const OpenFile*, std::vector<io::ReadRange>> ranges_;
  std::map<const OpenFile*, std::vector<RunsToRead>> runs_;
  DeviceTargets on_devices_;
};

/// Not every pair of dtypes converts (F4 to float does not): try it on one element.
void check_conversion(c10::ScalarType from, const at::Tensor& out, const std::string& label) {
  TORCH_CHECK_VALUE(!c10::isComplexType(from) || out.is_complex(), label, ": the file holds ", from,
                    ", which would lose its imaginary part as ", out.scalar_type());
  if (from == out.scalar_type()) {
    return;
  }
  try {
    const auto bytes = static_cast<int64_t>(c10::elementSize(from));
    at::empty({1}, out.scalar_type()).copy_(at::zeros({bytes}, at::kByte).view(from));
  } catch (const c10::Error& error) {
    TORCH_CHECK_VALUE(false, label, ": torch cannot convert ", from, " to ", out.scalar_type(), ": ",
                      error.what_without_backtrace());
  }
}

/// Targets that share memory are written one after the other, so that the last one wins whatever the threads
/// do.
std::vector<bool> overlapping(std::span<const Target> targets) {
  std::vector<size_t> order(targets.size());
  std::vector<ByteRange> ranges;
  for (size_t i = 0; i < targets.size(); ++i) {
    order[i] = i;
    const at::Tensor& out = targets[i].out;
    ranges.push_back(has_memory(out) ? byte_range(out) : ByteRange{});
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return ranges[a].begin < ranges[b].begin; });
  std::vector<bool> result(targets.size(), false);
  size_t furthest = 0;
  for (size_t i = 1; i < order.size(); ++i) {
    if (ranges[order[i]].begin < ranges[order[furthest]].end) {
      result[order[i]] = result[order[furthest]] = true;
    }
    if (ranges[order[i]].end > ranges[order[furthest]].end) {
      furthest = i;
    }
  }
  return result;
}

}  // namespace

void check_writable(const at::Tensor& out, c10::ScalarType from, const std::string& label) {
  TORCH_CHECK_VALUE(
      !out.is_meta(), label,
      ": is on the meta device and has no memory to load into; pass assign=True to load_model, or "
      "move the module with to_empty() first");
  if (has_memory(out)) {
    check_memory(out, label);
  }
  TORCH_CHECK(!out.is_inference() || c10::InferenceMode::is_enabled(), label,
              ": Inplace update to inference tensor outside InferenceMode is not allowed");
  TORCH_CHECK(!records_gradient(out) || !out.is_leaf(), label,
              ": a leaf Variable that requires grad is being used in an in-place operation; load under "
              "torch.no_grad()");
  TORCH_CHECK(
      at::has_internal_overlap(out) != at::MemOverlap::Yes, label,
      ": unsupported operation: more than one element of the written-to tensor refers to a single memory "
      "location (shape ",
      out.sizes(), ", strides ", out.strides(), "); make it contiguous first");
  check_conversion(from, out, label);
}

void write_into(const Checkpoint& file, std::span<const Target> targets, Overflows* overflows,
                const TransferOptions& options) {
  const std::vector<bool> shared = overlapping(targets);
  DirectReads reads(file, options);
  std::vector<const Target*> copied;
  uint64_t nbytes = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    const Source source(file, targets[i]);
    nbytes += source.nbytes();
    const at::Tensor& out = targets[i].out;
    if (!shared[i] && is_direct(out, source.dtype) && reads.add(source, out)) {
      out.unsafeGetTensorImpl()->bump_version();
    } else {
      copied.push_back(&targets[i]);
    }
  }
  io::Progress progress(nbytes);
  reads.run();
  for (const Target* target : copied) {
    const auto& [entry, out, part] = *target;
    const OpenFile& holder = file.file_of(*entry);
    const at::Tensor read =
        part ? holder.read_view(*entry, *part, at::kCPU) : holder.read(*entry, at::kCPU).view(out.sizes());
    if (overflows != nullptr) {
      overflows->add(std::string(entry->name), read, out.scalar_type());
    }
    out.copy_(read);
  }
  progress.finish();
}

void load_into(const Checkpoint& file, const std::vector<std::string>& names,
               const std::vector<at::Tensor>& outs,
               const std::optional<std::vector<std::vector<int64_t>>>& offsets) {
  TORCH_CHECK_VALUE(names.size() == outs.size(), "there are ", names.size(), " names for ", outs.size(),
                    " tensors");
  TORCH_CHECK_VALUE(!offsets || offsets->size() == outs.size(), "there are offsets of ",
                    offsets ? offsets->size() : 0, " tensors for ", outs.size());
  std::vector<Target> targets;
  for (size_t i = 0; i < names.size(); ++i) {
    const format::TensorEntry& entry = file.entry(names[i]);
    const TensorType type = tensor_type(file.source_of(entry), entry);
    const std::string label = file.source_of(entry) + ": tensor " + format::in_quotes(names[i]);
    const at::IntArrayRef sizes(type.sizes);
    TORCH_CHECK_VALUE(outs[i].scalar_type() == type.dtype && (offsets || outs[i].sizes() == sizes), label,
                      ": the file holds ", type.dtype, " ", sizes, " but the tensor to load into is ",
                      outs[i].scalar_type(), " ", outs[i].sizes());
    check_writable(outs[i], type.dtype, label);
    targets.push_back({&entry, outs[i]});
    if (offsets) {
      targets.back().part = part_view(sizes, (*offsets)[i], outs[i].sizes());
      TORCH_CHECK_VALUE(targets.back().part, label, ": the file holds ", sizes, ", of which no part of ",
                        outs[i].sizes(), " begins at ", at::IntArrayRef((*offsets)[i]));
    }
  }
  write_into(file, targets);
}

}  // namespace tensors

void load_into(const std::string& filename, std::string_view name, const at::Tensor& out,
               at::OptionalIntArrayRef offsets) {
  std::optional<std::vector<std::vector<int64_t>>> all;
  if (offsets) {
    all = {offsets->vec()};
  }
  const std::vector<std::string> names{std::string(name)};
  tensors::with_checkpoint(filename, "auto", tensors::Checkpoint::Opening::of(names),
                           [&](auto file) { tensors::load_into(*file, names, {out}, all); });
}

}  // namespace torch_safetensors
