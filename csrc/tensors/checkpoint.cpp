#include "tensors/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>

#include "format/checksum.h"
#include "format/text.h"
#include "io/progress.h"
#include "tensors/checkpoint_files.h"
#include "tensors/filename.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
Checkpoint::Checkpoint(const std::string& path, std::string_view backend) {
  const std::string decoded = decode_filename(path);
  if (is_index_name(decoded)) {
    open_index(decoded, backend);
    return;
  }
  try {
    open_file(path, backend);
    source_ = files_.front()->source();
  } catch (const OsError& error) {
    if (error.error_number() != EISDIR) {
      throw;
    }
    const std::string chosen = checkpoint_in(decoded);
    if (is_index_name(chosen)) {
      open_index(chosen, backend);
    } else {
      open_file(chosen, backend);
      source_ = files_.front()->source();
    }
  }
}

void Checkpoint::open_file(const std::string& path, std::string_view backend) {
  auto file = std::make_unique<OpenFile>(path, backend);
  begins_.push_back(files_.empty() ? 0 : begins_.back() + files_.back()->file().size());
  files_.push_back(std::move(file));
  const auto tensors = files_.back()->header().tensors();
  if (!tensors.empty()) {
    by_address_.emplace_back(tensors.data(), files_.size() - 1);
  }
}

void Checkpoint::open_index(const std::string& path, std::string_view backend) {
  source_ = format::printable(path);
  const format::ShardIndex index = read_index(path);
  for (const format::Shard& shard : index.shards()) {
    open_file(sibling_of(path, shard.file), backend);
  }
  std::ranges::sort(by_address_, std::less<>(), &AddressAndFile::first);
  check_index(index);
}

/// Files and index say the same, or one of them is of another checkpoint: some of its weights would be
/// missing, or others than those meant.
void Checkpoint::check_index(const format::ShardIndex& index) {
  for (const auto& file : files_) {
    for (const Entry& entry : file->header().tensors()) {
      const auto [other, is_new] = by_name_.emplace(entry.name, &entry);
      if (!is_new) {
        throw_malformed(source_, "tensor " + format::in_quotes(entry.name) + ": is in two files, " +
                                     source_of(*other->second) + " and " + file->source());
      }
    }
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    const std::vector<std::string>& names = index.shards()[i].names;
    for (const std::string& name : names) {
      if (files_[i]->header().find(name) == nullptr) {
        throw_malformed(source_, "tensor " + format::in_quotes(name) + ": the index says that it is in " +
                                     files_[i]->source() + ", which does not have it");
      }
    }
    for (const Entry& entry : files_[i]->header().tensors()) {
      if (!std::ranges::binary_search(names, entry.name)) {
        throw_malformed(source_, "tensor " + format::in_quotes(entry.name) + ": is in " +
                                     files_[i]->source() + " but not in the index");
      }
    }
  }
}

size_t Checkpoint::index_of(const Entry& entry) const {
  if (files_.size() == 1) {
    return 0;
  }
  const auto after = std::ranges::upper_bound(by_address_, &entry, std::less<>(), &AddressAndFile::first);
  return std::prev(after)->second;
}

size_t Checkpoint::size() const {
  size_t size = 0;
  for (const auto& file : files_) {
    size += file->header().tensors().size();
  }
  return size;
}

std::vector<const format::TensorEntry*> Checkpoint::entries() const {
  std::vector<const Entry*> entries;
  entries.reserve(size());
  for (const auto& file : files_) {
    for (const Entry& entry : file->header().tensors()) {
      entries.push_back(&entry);
    }
  }
  return entries;
}

std::vector<const format::TensorEntry*> Checkpoint::sorted_entries() const {
  std::vector<const Entry*> entries;
  if (files_.size() == 1) {
    const format::Header& header = files_.front()->header();
    entries.reserve(header.by_name().size());
    for (const uint32_t index : header.by_name()) {
      entries.push_back(&header.tensors()[index]);
    }
    return entries;
  }
  entries = this->entries();
  std::ranges::sort(entries, {}, &Entry::name);
  return entries;
}

bool Checkpoint::is_before(const Entry& a, const Entry& b) const {
  const size_t file_of_a = index_of(a);
  const size_t file_of_b = index_of(b);
  return file_of_a != file_of_b ? file_of_a < file_of_b : &a < &b;
}

const format::TensorEntry* Checkpoint::find(std::string_view name) const {
  if (files_.size() == 1) {
    return files_.front()->header().find(name);
  }
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const format::TensorEntry& Checkpoint::entry(std::string_view name) const {
  if (files_.size() == 1) {
    return files_.front()->entry(name);
  }
  const Entry* const entry = find(name);
  if (entry == nullptr) {
    throw_malformed(source_, "tensor " + format::in_quotes(name) + ": not in these " +
                                 std::to_string(files_.size()) + " files, which hold " +
                                 std::to_string(size()) + " tensors");
  }
  return *entry;
}

bool Checkpoint::has_metadata() const {
  return std::ranges::any_of(files_, [](const auto& file) { return file->header().metadata().has_value(); });
}

Metadata Checkpoint::metadata() const {
  std::map<std::string_view, std::string_view> merged;
  for (const auto& file : files_) {
    if (const auto& metadata = file->header().metadata()) {
      for (const auto& [key, value] : metadata->pairs()) {
        if (files_.size() == 1 || key != format::kChecksumsKey) {
          merged.emplace(key, value);
        }
      }
    }
  }
  Metadata result;
  for (const auto& [key, value] : merged) {
    result.insert(std::string(key), std::string(value));
  }
  return result;
}

bool Checkpoint::is_mapped() const {
  return std::ranges::all_of(files_, [](const auto& file) { return file->is_mapped(); });
}

uint64_t Checkpoint::position(const Entry& entry) const {
  const size_t file = index_of(entry);
  return begins_[file] + files_[file]->position(entry);
}

/// Entries of one file, and where in a list of entries each of them stands.
struct Checkpoint::Part {
  const OpenFile* file;
  std::vector<const Entry*> entries;
  std::vector<size_t> places;
};

std::vector<Checkpoint::Part> Checkpoint::by_file(std::span<const Entry* const> entries) const {
  std::vector<Part> parts;
  for (const auto& file : files_) {
    parts.push_back({file.get(), {}, {}});
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    Part& part = parts[index_of(*entries[i])];
    part.entries.push_back(entries[i]);
    part.places.push_back(i);
  }
  std::erase_if(parts, [](const Part& part) { return part.entries.empty(); });
  return parts;
}

std::vector<at::Tensor> Checkpoint::read(std::span<const Entry* const> entries, c10::Device device,
                                         const TransferOptions& options, bool verify) const {
  if (files_.size() == 1) {
    return files_.front()->read(entries, device, options, verify);
  }
  uint64_t nbytes = 0;
  for (const Entry* entry : entries) {
    nbytes += entry->nbytes();
  }
  io::Progress progress(verify ? 2 * nbytes : nbytes);
  std::vector<at::Tensor> tensors(entries.size());
  for (const Part& part : by_file(entries)) {
    std::vector<at::Tensor> read = part.file->read(part.entries, device, options, verify);
    for (size_t i = 0; i < read.size(); ++i) {
      tensors[part.places[i]] = std::move(read[i]);
    }
  }
  progress.finish();
  return tensors;
}

std::vector<at::Tensor> Checkpoint::read_all(c10::Device device, const TransferOptions& options,
                                             bool verify) const {
  if (is_mapped() && device.is_cpu()) {
    std::vector<const io::File*> files;
    for (const auto& file : files_) {
      files.push_back(&file->file());
    }
    const auto ahead = std::make_shared<io::ReadAhead>(files);
    for (const auto& file : files_) {
      file->keep(ahead);
    }
  }
  return read(entries(), device, options, verify);
}

void Checkpoint::will_need(std::span<const Entry* const> entries) const {
  for (const Part& part : by_file(entries)) {
    part.file->will_need(part.entries);
  }
}

void Checkpoint::verify() const {
  for (const auto& file : files_) {
    file->verify();
  }
}

void CheckpointBytes::read(std::span<const io::ReadRange> ranges) const {
  const std::vector<uint64_t>& begins = checkpoint_.begins_;
  // Of one file after the other; what is read together may go over the end of one.
  std::vector<io::ReadRange> local;
  size_t file = 0;
  const auto flush = [&] {
    if (!local.empty()) {
      checkpoint_.files_[file]->bytes().read(local);
      local.clear();
    }
  };
  for (io::ReadRange range : ranges) {
    while (!range.into.empty()) {
      const size_t in = std::ranges::upper_bound(begins, range.offset) - begins.begin() - 1;
      if (in != file) {
        flush();
        file = in;
      }
      const uint64_t left = in + 1 < begins.size() ? begins[in + 1] - range.offset : range.into.size();
      const size_t size = std::min<uint64_t>(range.into.size(), left);
      local.push_back({range.offset - begins[in], range.into.first(size)});
      range = {range.offset + size, range.into.subspan(size)};
    }
  }
  flush();
}

}  // namespace torch_safetensors::tensors
