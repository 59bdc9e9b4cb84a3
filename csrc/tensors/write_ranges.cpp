#include "tensors/write_ranges.h"

#include <c10/util/Exception.h>

#include "format/text.h"
#include "io/open_ranges.h"
#include "tensors/check_savable.h"
#include "tensors/device_save.h"
#include "tensors/filename.h"
#include "tensors/open_file.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

/// Where a part lies in its file.
struct Place {
  uint64_t begin;  // of the tensor
  StridedRuns runs;
};

Place place_of(const OpenFile& file, const std::string& source, const Box& box) {
  const auto& [name, tensor] = box.part;
  const std::string label = source + ": tensor " + format::in_quotes(name);
  const format::TensorEntry& entry = find_entry(source, file.header(), name);
  const TensorType type = tensor_type(source, entry);
  const at::IntArrayRef shape(type.sizes);
  TORCH_CHECK_VALUE(tensor.scalar_type() == type.dtype, label, ": the file holds ", type.dtype,
                    " but the part to be written is ", tensor.scalar_type());
  const std::optional<StridedView> view = part_view(shape, box.offsets, tensor.sizes());
  TORCH_CHECK_VALUE(view, label, ": a part of shape ", tensor.sizes(), " at ", at::IntArrayRef(box.offsets),
                    " does not lie within shape ", shape);
  return {file.position(entry), strided_runs(*view, static_cast<int64_t>(tensor.element_size()))};
}

}  // namespace

void write_ranges(const std::string& temporary, const std::string& filename, std::span<const Box> boxes,
                  bool fsync) {
  const std::string path = decode_filename(filename);
  const std::string source = format::printable(path);
  const OpenFile header(temporary, "pread");
  std::vector<Place> places;
  places.reserve(boxes.size());
  for (const Box& box : boxes) {
    check_parts_savable({&box.part, 1}, Overlap::kWrittenTwice);
    places.push_back(place_of(header, source, box));
  }
  const io::OpenRanges file(decode_filename(temporary), path);
  std::vector<uint64_t> done(boxes.size());
  TensorReader reader([&](size_t i, std::span<const std::byte> piece) {
    write_runs(file, places[i].begin, places[i].runs, done[i], piece);
    done[i] += piece.size();
  });
  for (const Box& box : boxes) {
    const at::Tensor dense = packed(box.part).tensor;
    if (!dense.is_alias_of(box.part.tensor)) {
      reader.follow_current();  // it is a copy, which may not be finished
    }
    reader.add(dense);
  }
  reader.flush();
  file.finish(fsync);
}

}  // namespace torch_safetensors::tensors
