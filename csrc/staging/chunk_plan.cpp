#include "staging/chunk_plan.h"

#include <algorithm>

namespace torch_safetensors::staging {
namespace {

/// Memory that small tensors share lives until the last of them dies: more than this would save no time worth
/// mentioning, and keep more.
constexpr size_t kMaxShared = size_t{4} << 20;

size_t aligned(size_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

/// Items that form one unit.
struct Group {
  std::vector<size_t> items;
  size_t nbytes = 0;
};

/// Small items go together wherever large ones lie between them in the file, as biases lie between weights.
std::vector<Group> form_groups(std::span<const Item> items, const PlanLimits& limits) {
  const size_t most = std::min(limits.block_size, kMaxShared);
  std::vector<Group> groups;
  size_t open = SIZE_MAX;  // the group that small items are added to
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t nbytes = items[i].nbytes;
    if (nbytes == 0) {
      continue;
    }
    const bool is_small = nbytes < limits.shared_below && nbytes <= most;
    if (!is_small) {
      groups.push_back({{i}, nbytes});
      continue;
    }
    if (open == SIZE_MAX || aligned(groups[open].nbytes) + nbytes > most) {
      open = groups.size();
      groups.emplace_back();
    }
    Group& small = groups[open];
    small.items.push_back(i);
    small.nbytes = aligned(small.nbytes) + nbytes;
  }
  return groups;
}

void add_shared(ChunkPlan& plan, std::span<const Item> items, const Group& group) {
  plan.chunks.push_back({plan.units.size(), group.nbytes, plan.parts.size(), group.items.size()});
  size_t end = 0;
  for (const size_t item : group.items) {
    plan.parts.push_back({item, 0, aligned(end), items[item].nbytes});
    end = aligned(end) + items[item].nbytes;
  }
}

void add_large(ChunkPlan& plan, const Group& group, size_t block_size) {
  for (size_t done = 0; done < group.nbytes; done += block_size) {
    const size_t nbytes = std::min(block_size, group.nbytes - done);
    plan.chunks.push_back({plan.units.size(), nbytes, plan.parts.size(), 1});
    plan.parts.push_back({group.items.front(), done, 0, nbytes});
  }
}

}  // namespace

std::span<const Part> ChunkPlan::parts_of(const Unit& unit) const {
  const Chunk& first = chunks[unit.first_chunk];
  const Chunk& last = chunks[unit.first_chunk + unit.chunk_count - 1];
  return std::span(parts).subspan(first.first_part, last.first_part + last.part_count - first.first_part);
}

ChunkPlan plan_chunks(std::span<const Item> items, const PlanLimits& limits) {
  ChunkPlan plan;
  for (const Group& group : form_groups(items, limits)) {
    const size_t first = plan.chunks.size();
    if (group.items.size() > 1) {
      add_shared(plan, items, group);
    } else {
      add_large(plan, group, limits.block_size);
    }
    plan.units.push_back({group.nbytes, first, plan.chunks.size() - first});
  }
  return plan;
}

}  // namespace torch_safetensors::staging
