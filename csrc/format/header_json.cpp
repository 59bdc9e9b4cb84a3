#include "format/header_json.h"

#include "format/header_builder.h"
#include "format/json_reader.h"

namespace torch_safetensors::format {

HeaderContent parse_header_json(std::string_view json) {
  HeaderContent header(json);
  HeaderBuilder builder(header);
  read_json(json, "header", builder);
  return header;
}

}  // namespace torch_safetensors::format
