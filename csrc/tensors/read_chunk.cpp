#include "tensors/read_chunk.h"

#include <vector>

namespace torch_safetensors::tensors {

void read_chunk(const ByteSource& source, const staging::ChunkPlan& plan, const staging::Chunk& chunk,
                std::span<const staging::Item> items, std::span<std::byte> block) {
  std::vector<io::ReadRange> ranges;
  ranges.reserve(chunk.part_count);
  for (const staging::Part& part : plan.parts_of(chunk)) {
    ranges.push_back(
        {items[part.item].source + part.item_offset, block.subspan(part.block_offset, part.nbytes)});
  }
  source.read(ranges);
}

}  // namespace torch_safetensors::tensors
