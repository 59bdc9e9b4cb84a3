#include "tensors/prefetch.h"

#include <unistd.h>

#include <algorithm>

#include "format/text.h"
#include "tensors/background_load.h"
#include "tensors/source.h"

namespace torch_safetensors::tensors {
namespace {

using Answer = staging::PrefetchQueue::Answer;

/// As many as the reference's, whatever the number of cores: they wait more than they work.
constexpr size_t kReaders = 8;

/// One part of a file as `Prefetch` loads it.
NamedRows rows_of(const Checkpoint& file, const std::string& name, int64_t begin, int64_t end) {
  const format::TensorEntry& entry = file.entry(name);
  NamedRows rows{name, {tensor_type(file.source_of(entry), entry), file.position(entry)}};
  if (begin == -1 && end == -1) {
    return rows;
  }
  TensorType& type = rows.wanted.type;
  const std::string label = file.source_of(entry) + ": tensor " + format::in_quotes(name);
  TORCH_CHECK_VALUE(!type.sizes.empty(), label, ": has no dimension to slice");
  TORCH_CHECK_VALUE(0 <= begin && begin <= end && end <= type.sizes[0], label, ": rows [", begin, ", ", end,
                    ") are not within its ", type.sizes[0]);
  const size_t row = type.sizes[0] == 0 ? 0 : type.nbytes / type.sizes[0];
  rows.wanted.source += begin * row;
  type.sizes[0] = end - begin;
  type.nbytes = (end - begin) * row;
  return rows;
}

}  // namespace

Prefetch::Prefetch(c10::intrusive_ptr<SafeOpen> file, const std::vector<std::string>& names,
                   const std::vector<int64_t>& begins, const std::vector<int64_t>& ends, c10::Device device,
                   std::optional<int64_t> threads, std::optional<int64_t> buffer_size,
                   std::optional<int64_t> ring_size)
    : file_(std::move(file)) {
  const Checkpoint& open = file_->file();
  TORCH_CHECK_VALUE(begins.size() == names.size() && ends.size() == names.size(),
                    "prefetch needs a begin and an end for each name");
  TORCH_CHECK_VALUE(!device.is_meta(), open.source(), ": there is nothing to prefetch to the meta device");
  TORCH_CHECK_VALUE(!buffer_size || *buffer_size > 0, "buffer_size must be positive, not ", *buffer_size);
  std::vector<NamedRows> rows;
  for (size_t i = 0; i < names.size(); ++i) {
    rows.push_back(rows_of(open, names[i], begins[i], ends[i]));
  }
  std::sort(rows.begin(), rows.end(), [](const NamedRows& a, const NamedRows& b) {
    return std::tie(a.wanted.source, a.wanted.type.nbytes, a.name) <
           std::tie(b.wanted.source, b.wanted.type.nbytes, b.name);
  });
  const auto reader_count = static_cast<int64_t>(reader_threads(threads, kReaders));
  load_ = std::make_shared<BackgroundLoad>(open.bytes(), std::move(rows), device,
                                           transfer_settings(device, {reader_count, ring_size}),
                                           buffer_size.value_or(kDefaultBuffer));
}

Prefetch::~Prefetch() {
  if (!load_->is_of_this_process()) {
    // Its threads are not of this process, and locks that they held stay locked: left as it is.
    new std::shared_ptr<BackgroundLoad>(load_);
  }
}

void Prefetch::throw_closed() const {
  throw_malformed(file_->file().source(), "the prefetch loader is closed");
}

BackgroundLoad& Prefetch::load() const {
  if (!load_->is_of_this_process()) {
    throw_malformed(file_->file().source(),
                    "the prefetch loader was made before a fork, and its threads are in the parent; "
                    "make one in this process");
  }
  return *load_;
}

std::vector<std::string> Prefetch::names() const {
  std::vector<std::string> names;
  for (const NamedRows& rows : load_->rows()) {
    names.push_back(rows.name);
  }
  return names;
}

std::optional<at::Tensor> Prefetch::take(const std::string& name, int64_t milliseconds) {
  BackgroundLoad& load = this->load();
  const std::optional<size_t> item = load.find(name);
  const std::string& source = file_->file().source();
  if (!item) {
    throw_malformed(source, "tensor " + format::in_quotes(name) + ": is not among the " +
                                std::to_string(load.rows().size()) + " tensors being prefetched");
  }
  switch (load.queue().take(*item, std::chrono::milliseconds(milliseconds))) {
    case Answer::kYours:
      return hand_out(*item);
    case Answer::kNotYet:
      return std::nullopt;
    case Answer::kTaken:
      throw_malformed(source, "tensor " + format::in_quotes(name) + ": was handed out already");
    case Answer::kStopped:
      break;
  }
  throw_closed();
}

at::Tensor Prefetch::hand_out(size_t item) {
  at::Tensor tensor = load_->hand_out(item);
  if (!tensor.defined()) {
    throw_closed();  // by another thread, just now
  }
  return tensor;
}

std::tuple<std::optional<std::string>, std::optional<at::Tensor>> Prefetch::take_any(int64_t milliseconds) {
  BackgroundLoad& load = this->load();
  const auto [answer, item] = load.queue().take_any(std::chrono::milliseconds(milliseconds));
  switch (answer) {
    case Answer::kYours:
      return {load.rows()[item].name, hand_out(item)};
    case Answer::kNotYet:
      return {"", std::nullopt};
    case Answer::kTaken:
      return {std::nullopt, std::nullopt};
    case Answer::kStopped:
      break;
  }
  throw_closed();
}

void Prefetch::close() {
  if (load_->is_of_this_process()) {
    load_->stop();
  }
}

}  // namespace torch_safetensors::tensors
