// How fast headers are parsed and written, and what hostile ones cost: time, and the memory that parsing adds
// at its peak to the text.
//
//   cmake -S . -B build/bench -DTORCH_SAFETENSORS_CORE_ONLY=ON -DTORCH_SAFETENSORS_BUILD_BENCHMARKS=ON
//   cmake --build build/bench --target header_parse && build/bench/header_parse
//
// `header_parse 100000` is about headers of so many tensors alone, and `header_parse canonical 100000 50`
// repeats one case for a profiler.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "format/header.h"
#include "format/serialize.h"
#include "torch_safetensors/errors.h"

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

/// `unit` as often as it fits into a header of the largest size, between `before` and `after`.
std::string repeated(std::string_view before, std::string_view unit, std::string_view after) {
  std::string json;
  json.reserve(format::kMaxHeaderSize);
  json += before;
  while (json.size() + unit.size() + after.size() < format::kMaxHeaderSize) {
    json += unit;
  }
  json += after;
  return json;
}

/// A header of entries that `entry(i)` gives, with a comma between them.
std::string listed(std::string_view before, const std::function<std::string(size_t)>& entry,
                   std::string_view after) {
  std::string json;
  json.reserve(format::kMaxHeaderSize);
  json += before;
  for (size_t i = 0;; ++i) {
    const std::string next = entry(i);
    if (json.size() + next.size() + 1 + after.size() > format::kMaxHeaderSize) {
      json += after;
      return json;
    }
    json += i == 0 ? "" : ",";
    json += next;
  }
}

std::string scrambled_hex(size_t i) {
  char text[16];
  std::snprintf(text, sizeof(text), "%x", static_cast<unsigned>(i * 2654435761u));
  return text;
}

std::string empty_tensor(const std::string& name) {
  return '"' + name + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
}

using MakeJson = std::function<std::string()>;

std::vector<std::pair<const char*, MakeJson>> hostile_headers() {
  const std::string tensor = R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0])";
  const std::string field = tensor + R"(,"x":)";
  return {
      {"numbers 1e100", [=] { return repeated(field + "[0", ",1e100", "]}}"); }},
      {"numbers 1.7e308", [=] { return repeated(field + "[0", ",1.7e308", "]}}"); }},
      {"numbers too large", [=] { return repeated(field + "[0", ",-1.8e308", "]}}"); }},
      {"one number", [=] { return repeated(field + "0.", "1", "}}"); }},
      {"one integer", [=] { return repeated(field, "1", "}}"); }},
      {"numbers of 1e5 digits",
       [=] { return repeated(field + "[0", ",0." + std::string(100'000, '9'), "]}}"); }},
      {"one dimension", [=] { return repeated(R"({"w":{"shape":[)", "1", "]}}"); }},
      {"dimensions",
       [=] { return repeated(R"({"w":{"dtype":"U8","shape":[0)", ",1", R"(],"data_offsets":[0,0]}})"); }},
      {"dimensions, escape",
       [=] {
         return repeated(R"({"\u0077":{"dtype":"U8","shape":[0)", ",1", R"(],"data_offsets":[0,0]}})");
       }},
      {"brackets", [=] { return repeated("", "[", ""); }},
      {"brackets in a field", [=] { return repeated(field, "[", ""); }},
      {"flat brackets", [=] { return repeated(field + "[[]", ",[]", "]}}"); }},
      {"one name",
       [=] { return repeated("{\"", "a", R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"); }},
      {"one name, escapes",
       [=] { return repeated("{\"", "\\n", R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"); }},
      {"one string, ignored", [=] { return repeated(field + '"', "a", "\"}}"); }},
      {"one string, no end", [=] { return repeated("{\"", "a", ""); }},
      {"spaces", [=] { return repeated("{}", " ", ""); }},
      {"line breaks in it", [=] { return repeated("{", "\n", "}"); }},
      {"commas in a name",
       [=] { return repeated("{\"", ",", R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"); }},
      {"tensors", [=] { return listed("{", [](size_t i) { return empty_tensor(scrambled_hex(i)); }, "}"); }},
      {"tensors, then escape",
       [=] { return listed("{", [](size_t i) { return empty_tensor(scrambled_hex(i)); }, R"(,"\n":1})"); }},
      {"tensors, alike",
       [=] {
         return listed(
             "{" + empty_tensor("") + ",",
             [](size_t i) { return empty_tensor(std::string(50, 'a') + scrambled_hex(i)); }, "}");
       }},
      {"tensors, long names",
       [=] {
         return listed(
             "{", [](size_t i) { return empty_tensor(std::string(100'000, 'a') + scrambled_hex(i)); }, "}");
       }},
      {"tensors, one name", [=] { return listed("{", [](size_t) { return empty_tensor(""); }, "}"); }},
      {"fields, ignored",
       [=] { return listed(tensor + ",", [](size_t) { return std::string("\"\":0"); }, "}}"); }},
      {"metadata, scrambled",
       [=] {
         return listed(
             R"({"__metadata__":{)", [](size_t i) { return '"' + scrambled_hex(i) + "\":\"\""; }, "}}");
       }},
      {"metadata, sorted",
       [=] {
         return listed(
             R"({"__metadata__":{)",
             [](size_t i) { return '"' + std::to_string(10'000'000 + i) + "\":\"\""; }, "}}");
       }},
      {"metadata, one key",
       [=] { return listed(R"({"__metadata__":{)", [](size_t) { return std::string("\"\":\"\""); }, "}}"); }},
      {"metadata, alike",
       [=] {
         return listed(
             R"({"__metadata__":{)",
             [](size_t i) { return "\"aaaaaaaaaaaaaaaa" + scrambled_hex(i) + "\":\"\""; }, "}}");
       }},
      {"metadata, escapes", [=] { return repeated(R"({"__metadata__":{"k":")", "\\n", "\"}}"); }},
  };
}

long peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss / 1024;
#else
  return usage.ru_maxrss;
#endif
}

/// Never returns: runs in a process of its own, so that the peak of memory is the case's.
[[noreturn]] void run_hostile(const char* what, const MakeJson& make) {
  const std::string json = make();
  const long before = peak_kilobytes();
  std::string verdict = "accepted";
  const double time = milliseconds_of([&] {
    try {
      format::parse_header(json, 0);
    } catch (const SafetensorError& error) {
      verdict = std::string(error.what()).substr(0, 90);
    }
  });
  const double peak =
      static_cast<double>(peak_kilobytes() - before) * 1024 / static_cast<double>(json.size());
  std::printf("%-22s %8.0f ms  peak %5.2f x header  %s\n", what, time, peak, verdict.c_str());
  std::fflush(stdout);
  _exit(0);
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
  for (const auto& [what, make] : hostile_headers()) {
    if (const pid_t child = fork(); child == 0) {
      run_hostile(what, make);
    } else if (child > 0) {
      waitpid(child, nullptr, 0);
    }
  }
  for (const size_t count : {100, 1'000, 10'000, 100'000, 800'000}) {
    run_canonical(count);
  }
}
