// How fast headers are parsed and written (hostile.py has what hostile ones cost).
//
//   cmake -S . -B build/bench -DTORCH_SAFETENSORS_CORE_ONLY=ON -DTORCH_SAFETENSORS_BUILD_BENCHMARKS=ON
//   cmake --build build/bench --target header_parse && build/bench/header_parse
//
// `header_parse 100000` is about headers of so many tensors alone, and `header_parse canonical 100000 50`
// repeats one case for a profiler.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "format/header.h"
#include "format/serialize.h"

namespace {

using namespace torch_safetensors;
using Clock = std::chrono::steady_clock;

double milliseconds_of(const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

struct Model {
  std::vector<std::string> names;
  std::vector<int64_t> shape{2, 2};
  std::vector<format::TensorSpec> specs;
};

Model make_model(size_t count) {
  constexpr const char* kParts[] = {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                                    "mlp.up_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"};
  Model model;
  for (size_t i = 0; i < count; ++i) {
    model.names.push_back("model.layers." + std::to_string(i / std::size(kParts)) + "." +
                          kParts[i % std::size(kParts)]);
  }
  for (const std::string& name : model.names) {
    model.specs.push_back({name, format::DType::kF32, model.shape});
  }
  return model;
}

/// As another writer has it: in the order of the model, which is not the order of the names.
std::string unsorted_json(const Model& model, std::string_view comma, std::string_view colon) {
  std::string json = "{";
  uint64_t end = 0;
  for (const std::string& name : model.names) {
    json += json.size() == 1 ? "" : comma;
    ((((json += '"') += name) += '"') += colon) += "{\"dtype\"";
    ((json += colon) += "\"F32\"") += comma;
    ((((json += "\"shape\"") += colon) += "[2") += comma) += "2]";
    (((json += comma) += "\"data_offsets\"") += colon) += '[';
    json += std::to_string(end);
    end += 16;
    ((json += comma) += std::to_string(end)) += "]}";
  }
  return json + '}';
}

std::string_view json_of(const std::string& bytes) {
  return std::string_view(bytes).substr(format::kPrefixSize);
}

/// Best and median of so many runs that they take about half a second.
void report(const char* what, size_t count, size_t bytes, const std::function<void()>& work) {
  std::vector<double> times;
  double total = 0;
  while (times.size() < 7 || (total < 500 && times.size() < 1000)) {
    times.push_back(milliseconds_of(work));
    total += times.back();
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const auto rate = [&](double time) { return static_cast<double>(bytes) / 1e3 / time; };
  std::printf("%-22s %8zu tensors %10zu bytes  best %9.3f ms %7.1f MB/s  median %9.3f ms %7.1f MB/s\n", what,
              count, bytes, times.front(), rate(times.front()), median, rate(median));
}

void run_canonical(size_t count) {
  const Model model = make_model(count);
  const std::string bytes = format::serialize_header(model.specs, nullptr).bytes;
  const uint64_t data_size = count * 16;
  report("parse, as written", count, json_of(bytes).size(),
         [&] { format::parse_header(json_of(bytes), data_size); });
  const std::string unsorted = unsorted_json(model, ",", ":");
  report("parse, names unsorted", count, unsorted.size(), [&] { format::parse_header(unsorted, data_size); });
  const std::string spaced = unsorted_json(model, ", ", ": ");
  report("parse, with spaces", count, spaced.size(), [&] { format::parse_header(spaced, data_size); });
  report("serialize", count, bytes.size(), [&] { format::serialize_header(model.specs, nullptr); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4) {
    const Model model = make_model(std::strtoul(argv[2], nullptr, 10));
    const std::string bytes = format::serialize_header(model.specs, nullptr).bytes;
    for (unsigned long i = std::strtoul(argv[3], nullptr, 10); i > 0; --i) {
      format::parse_header(json_of(bytes), model.names.size() * 16);
    }
    return 0;
  }
  if (argc == 2) {
    run_canonical(std::strtoul(argv[1], nullptr, 10));
    return 0;
  }
  for (const size_t count : {100, 1'000, 10'000, 100'000, 800'000}) {
    run_canonical(count);
  }
}
