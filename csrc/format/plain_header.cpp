#include "format/plain_header.h"

#include "format/json_scanner.h"
#include "format/text.h"

namespace torch_safetensors::format {
namespace {

/// Bits for the fields of a tensor.
constexpr unsigned kDType = 1;
constexpr unsigned kShape = 2;
constexpr unsigned kOffsets = 4;
constexpr unsigned kAllFields = kDType | kShape | kOffsets;

/// Every function returns false where the header is not plain.
class PlainReader {
 public:
  explicit PlainReader(std::string_view json) : scan_(json), header_(json) {}

  bool read() {
    if (!scan_.take('{')) {
      return false;
    }
    if (!scan_.take('}')) {
      do {
        if (!read_entry()) {
          return false;
        }
      } while (scan_.take(','));
      if (!scan_.take('}')) {
        return false;
      }
    }
    return scan_.at_end();
  }

  HeaderContent take_header() { return std::move(header_); }

 private:
  bool read_entry() {
    std::string_view name;
    if (!read_string(name) || !scan_.take(':')) {
      return false;
    }
    return name == kMetadataKey ? read_metadata() : read_tensor(name);
  }

  bool read_string(std::string_view& text) {
    bool ascii = false;
    return scan_.string(text, ascii) && (ascii || is_utf8(text));
  }

  bool read_metadata() {
    if (header_.metadata || !scan_.take('{')) {
      return false;
    }
    MetadataBuilder metadata;
    if (!scan_.take('}')) {
      do {
        std::string_view key;
        std::string_view value;
        if (!read_string(key) || !scan_.take(':') || !read_string(value)) {
          return false;
        }
        metadata.add(key, value);
      } while (scan_.take(','));
      if (!scan_.take('}')) {
        return false;
      }
    }
    header_.metadata = std::move(metadata).build();
    return true;
  }

  bool read_tensor(std::string_view name) {
    TensorEntry tensor{};
    unsigned fields = 0;
    if (!scan_.take('{')) {
      return false;
    }
    do {
      const unsigned field = read_field(tensor);
      if (field == 0 || (fields & field) != 0) {
        return false;
      }
      fields |= field;
    } while (scan_.take(','));
    if (!scan_.take('}') || fields != kAllFields) {
      return false;
    }
    tensor.name = header_.add_name(name);
    header_.tensors.push_back(tensor);
    return true;
  }

  /// The field that was read, or 0.
  unsigned read_field(TensorEntry& tensor) {
    std::string_view key;
    bool ascii = false;
    if (!scan_.string(key, ascii) || !scan_.take(':')) {
      return 0;
    }
    if (key == "dtype") {
      return read_dtype(tensor) ? kDType : 0;
    }
    if (key == "shape") {
      return read_shape(tensor) ? kShape : 0;
    }
    return key == "data_offsets" && read_offsets(tensor) ? kOffsets : 0;
  }

  bool read_dtype(TensorEntry& tensor) {
    std::string_view text;
    bool ascii = false;
    if (!scan_.string(text, ascii)) {
      return false;
    }
    // Mostly that of the tensor before.
    if (text != dtype_name(dtype_)) {
      const auto dtype = find_dtype(text);
      if (!dtype) {
        return false;
      }
      dtype_ = *dtype;
    }
    tensor.dtype = dtype_;
    return true;
  }

  bool read_shape(TensorEntry& tensor) {
    const int64_t* const begin = header_.dims.end();
    if (!scan_.take('[')) {
      return false;
    }
    if (!scan_.take(']')) {
      do {
        uint64_t size = 0;
        if (!scan_.number(size) || size > INT64_MAX) {
          return false;
        }
        header_.dims.push_back(static_cast<int64_t>(size));
      } while (scan_.take(','));
      if (!scan_.take(']')) {
        return false;
      }
    }
    tensor.shape = {begin, header_.dims.end()};
    return true;
  }

  bool read_offsets(TensorEntry& tensor) {
    return scan_.take('[') && scan_.number(tensor.begin) && scan_.take(',') && scan_.number(tensor.end) &&
           scan_.take(']');
  }

  JsonScanner scan_;
  HeaderContent header_;
  DType dtype_ = DType::kF32;
};

}  // namespace

std::optional<HeaderContent> read_plain_header(std::string_view json) {
  PlainReader reader(json);
  return reader.read() ? std::optional(reader.take_header()) : std::nullopt;
}

}  // namespace torch_safetensors::format
