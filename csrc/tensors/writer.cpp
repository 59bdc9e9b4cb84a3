#include "torch_safetensors/writer.h"

#include "tensors/save_plan.h"
#include "tensors/stream_writer.h"

namespace torch_safetensors {

Writer::Writer(const std::string& filename, const TensorDict& spec, const std::optional<Metadata>& metadata,
               bool fsync, bool checksum, int64_t alignment)
    : impl_(std::make_unique<tensors::StreamWriter>(
          filename, tensors::to_named(spec), tensors::to_format(metadata), fsync, checksum, alignment)) {}

Writer::~Writer() = default;
Writer::Writer(Writer&&) noexcept = default;
Writer& Writer::operator=(Writer&&) noexcept = default;

void Writer::write(std::string_view name, const at::Tensor& tensor) {
  impl_->write({std::string(name), tensor});
}

void Writer::close() { tensors::warn_of(impl_->close()); }

void Writer::abort() { impl_->abort(); }

}  // namespace torch_safetensors
