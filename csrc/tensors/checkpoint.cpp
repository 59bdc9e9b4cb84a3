#include "tensors/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>

#include "format/checksum.h"
#include "format/text.h"
#include "io/os_error.h"
#include "io/progress.h"
#include "tensors/checkpoint_files.h"
#include "tensors/filename.h"
#include "tensors/index_differences.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

/// A save takes longer than opening what it wrote: after so many that came in between, something is wrong.
constexpr int kMaxAttempts = 100;

bool is_there(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));  // also a link to nothing
}

/// Errors of the process, and not of one file.
bool is_exhausted(const OsError& error) {
  const int number = error.error_number();
  return number == EMFILE || number == ENFILE || number == ENOMEM;
}

}  // namespace

Checkpoint::Checkpoint(const std::string& path, std::string_view backend, const Opening& opening) {
  const std::string given = decode_filename(path);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (open_once(given, backend, opening)) {
      return;
    }
  }
  io::throw_os_error(ESTALE,
                     "another save replaced the checkpoint each of the " + std::to_string(kMaxAttempts) +
                         " times it was opened; load it while nobody saves to it",
                     given);
}

/// False where the checkpoint was replaced meanwhile.
bool Checkpoint::open_once(const std::string& given, std::string_view backend, const Opening& opening) {
  forget();
  path_ = given;
  if (!is_index_name(given)) {
    try {
      open_single(given, backend);
      return true;
    } catch (const OsError& error) {
      if (error.error_number() != EISDIR) {
        throw;
      }
    }
    directory_ = given;
    path_ = checkpoint_in(given);
  }
  try {
    if (is_index_name(path_)) {
      return open_index(path_, backend, opening);
    }
    open_single(path_, backend);
    return true;
  } catch (const OsError& error) {
    // It was there when the directory was listed.
    if (directory_.empty() || error.error_number() != ENOENT || is_there(path_)) {
      throw;
    }
    return false;
  }
}

void Checkpoint::forget() {
  by_name_.clear();
  by_address_.clear();
  begins_.clear();
  files_.clear();
  shards_.clear();
  errors_.clear();
  index_.reset();
  index_file_.reset();
}

void Checkpoint::add_file(std::unique_ptr<OpenFile> file) {
  begins_.push_back(files_.empty() ? 0 : begins_.back() + files_.back()->file()->size());
  files_.push_back(std::move(file));
  const auto tensors = files_.back()->header().tensors();
  if (!tensors.empty()) {
    by_address_.emplace_back(tensors.data(), files_.size() - 1);
  }
}

void Checkpoint::open_single(const std::string& path, std::string_view backend) {
  add_file(std::make_unique<OpenFile>(path, backend, nullptr));
  source_ = files_.front()->source();
}

bool Checkpoint::open_index(const std::string& path, std::string_view backend, const Opening& opening) {
  source_ = format::printable(path);
  // Open until the end: no other file gets its inode meanwhile, whatever becomes of its name.
  index_file_ = std::make_shared<const io::File>(path);
  try {
    index_ = read_index(*index_file_);
    shards_.assign(index_->shards().size(), nullptr);
    errors_.assign(index_->shards().size(), nullptr);
    std::vector<bool> is_needed(shards_.size(), !opening.names);
    for (size_t shard = 0; shard < shards_.size(); ++shard) {
      for (const std::string& name : index_->shards()[shard].names) {
        by_name_.emplace(name, Assigned{nullptr, shard});
      }
    }
    for (const std::string& name : opening.names.value_or(std::span<const std::string>())) {
      if (const auto found = by_name_.find(name); found != by_name_.end()) {
        is_needed[found->second.shard] = true;
      }
    }
    for (size_t shard = 0; shard < shards_.size(); ++shard) {
      if (is_needed[shard]) {
        open_shard(shard, backend, opening);
      }
    }
    std::ranges::sort(by_address_, std::less<>(), &AddressAndFile::first);
    find_entries();
    if (opening.is_whole) {
      require_whole(opening.strict_index);
    }
  } catch (const std::exception&) {
    if (!io::leads_to(path, index_file_->identity())) {
      return false;  // the files of a save go as soon as the index is another one's
    }
    throw;
  }
  return io::leads_to(path, index_file_->identity());
}

void Checkpoint::open_shard(size_t shard, std::string_view backend, const Opening& opening) {
  try {
    add_file(
        std::make_unique<OpenFile>(sibling_of(path_, index_->shards()[shard].file), backend, index_file_));
    shards_[shard] = files_.back().get();
    return;
  } catch (const OsError& error) {
    if (opening.is_whole || is_exhausted(error)) {
      throw;
    }
    errors_[shard] = std::current_exception();
  } catch (const SafetensorError&) {
    if (opening.is_whole) {
      throw;
    }
    errors_[shard] = std::current_exception();
  }
}

void Checkpoint::find_entries() {
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    if (shards_[shard] != nullptr) {
      for (const std::string& name : index_->shards()[shard].names) {
        by_name_.at(name).entry = shards_[shard]->header().find(name);
      }
    }
  }
}

void Checkpoint::require_files() const {
  for (const std::exception_ptr& error : errors_) {
    if (error) {
      std::rethrow_exception(error);
    }
  }
}

/// Where files and index differ, one of them is of another checkpoint, or of another version of it: some of
/// its weights would be missing, or others than those meant.
void Checkpoint::require_whole(bool strict_index) const {
  require_files();
  IndexDifferences differences;
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    const OpenFile& file = *shards_[shard];
    for (const std::string& name : index_->shards()[shard].names) {
      if (by_name_.at(name).entry == nullptr) {
        differences.add_lacking(name, file.source());
      }
    }
    if (!strict_index) {
      continue;
    }
    for (const Entry& entry : file.header().tensors()) {
      const auto found = by_name_.find(entry.name);
      if (found == by_name_.end()) {
        differences.add_unlisted(entry.name, file.source());
      } else if (found->second.entry != nullptr && found->second.entry != &entry) {
        differences.add_second(entry.name, shards_[found->second.shard]->source(), file.source());
      }
    }
  }
  differences.throw_if_any(source_, shards_.size());
}

const io::FileIdentity& Checkpoint::version() const {
  return index_file_ ? index_file_->identity() : files_.front()->file()->identity();
}

bool Checkpoint::is_current() const {
  try {
    return (directory_.empty() || checkpoint_in(directory_) == path_) && io::leads_to(path_, version());
  } catch (const OsError&) {
    return false;
  }
}

bool Checkpoint::is_assigned(const Entry& entry) const {
  if (!index_) {
    return true;
  }
  const auto found = by_name_.find(entry.name);
  return found != by_name_.end() && found->second.entry == &entry;
}

size_t Checkpoint::index_of(const Entry& entry) const {
  const auto after = std::ranges::upper_bound(by_address_, &entry, std::less<>(), &AddressAndFile::first);
  const size_t file = after == by_address_.begin() ? files_.size() : std::prev(after)->second;
  const bool is_own =
      file < files_.size() && std::less<>()(&entry, std::to_address(files_[file]->header().tensors().end()));
  TORCH_CHECK(is_own, source_, ": tensor ", format::in_quotes(entry.name),
              " is an entry of another checkpoint");
  return file;
}

size_t Checkpoint::size() const {
  return index_ ? by_name_.size() : files_.front()->header().tensors().size();
}

std::vector<const format::TensorEntry*> Checkpoint::entries() const {
  std::vector<const Entry*> entries;
  entries.reserve(size());
  for (const auto& file : files_) {
    for (const Entry& entry : file->header().tensors()) {
      if (is_assigned(entry)) {
        entries.push_back(&entry);
      }
    }
  }
  return entries;
}

std::vector<std::string_view> Checkpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(size());
  for (const Entry* entry : entries()) {
    names.push_back(entry->name);
  }
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const std::string& name : index_->shards()[shard].names) {
      if (by_name_.at(name).entry == nullptr) {
        names.push_back(name);
      }
    }
  }
  return names;
}

std::vector<std::string_view> Checkpoint::sorted_names() const {
  std::vector<std::string_view> names;
  if (!index_) {
    const format::Header& header = files_.front()->header();
    names.reserve(header.by_name().size());
    for (const uint32_t index : header.by_name()) {
      names.push_back(header.tensors()[index].name);
    }
    return names;
  }
  names = this->names();
  std::ranges::sort(names);
  return names;
}

bool Checkpoint::is_before(const Entry& a, const Entry& b) const {
  const size_t file_of_a = index_of(a);
  const size_t file_of_b = index_of(b);
  return file_of_a != file_of_b ? file_of_a < file_of_b : &a < &b;
}

bool Checkpoint::contains(std::string_view name) const {
  return index_ ? by_name_.contains(name) : files_.front()->header().find(name) != nullptr;
}

const format::TensorEntry* Checkpoint::find(std::string_view name) const {
  if (!index_) {
    return files_.front()->header().find(name);
  }
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : open_entry(name, found->second);
}

const format::TensorEntry* Checkpoint::open_entry(std::string_view name, const Assigned& assigned) const {
  if (assigned.entry != nullptr) {
    return assigned.entry;
  }
  const std::string label = "tensor " + format::in_quotes(name) + ": the index says that it is in ";
  const OpenFile* const file = shards_[assigned.shard];
  if (file == nullptr && errors_[assigned.shard]) {
    std::rethrow_exception(errors_[assigned.shard]);
  }
  TORCH_CHECK(file != nullptr, source_, ": ", label, index_->shards()[assigned.shard].file,
              ", which was not opened");
  throw_malformed(source_, label + file->source() + ", which does not have it");
}

const format::TensorEntry& Checkpoint::entry(std::string_view name) const {
  if (!index_) {
    return files_.front()->entry(name);
  }
  const Entry* const entry = find(name);
  if (entry == nullptr) {
    throw_malformed(source_, "tensor " + format::in_quotes(name) + ": not in these " +
                                 std::to_string(shards_.size()) + " files, which hold " +
                                 std::to_string(size()) + " tensors");
  }
  return *entry;
}

bool Checkpoint::has_metadata() const {
  require_files();
  return std::ranges::any_of(files_, [](const auto& file) { return file->header().metadata().has_value(); });
}

Metadata Checkpoint::metadata() const {
  require_files();
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
    for (const Entry* entry : entries) {
      index_of(*entry);  // throws for one that is not its own
    }
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
    std::vector<std::shared_ptr<const io::SteadyFile>> files;
    for (const auto& file : files_) {
      files.push_back(file->file());
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
  require_files();
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
