#include "format/checksum.h"

#include <gtest/gtest.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string>
#include <vector>

#include "error_of.h"

namespace torch_safetensors::format {
namespace {

using namespace std::string_literals;

Checksum checksum_of(std::string_view name, DType dtype, const std::vector<int64_t>& shape,
                     std::string_view bytes) {
  ChecksumBuilder builder(name, dtype, shape);
  builder.add(std::as_bytes(std::span(bytes)));
  return builder.build();
}

TEST(Checksum, IsXxh3OfNameSignatureAndBytes) {
  const std::string bytes(1000, 'x');
  const std::string all = "layer.w\0F32[2,125]\0"s + bytes;
  const XXH128_hash_t expected = XXH3_128bits(all.data(), all.size());
  EXPECT_EQ(checksum_of("layer.w", DType::kF32, {2, 125}, bytes),
            (Checksum{expected.high64, expected.low64}));
}

TEST(Checksum, DoesNotDependOnThePiecesThatBytesComeIn) {
  const std::string bytes(5000, 'y');
  ChecksumBuilder builder("w", DType::kU8, std::vector<int64_t>{5000});
  for (const size_t begin : {0, 1, 300, 4000}) {
    const size_t end = begin == 0 ? 1 : begin == 1 ? 300 : begin == 300 ? 4000 : 5000;
    builder.add(std::as_bytes(std::span(bytes)).subspan(begin, end - begin));
  }
  EXPECT_EQ(builder.build(), checksum_of("w", DType::kU8, {5000}, bytes));
}

TEST(Checksum, TellsNamesDtypesAndShapesApart) {
  const Checksum checksum = checksum_of("w", DType::kF32, {2}, "12345678");
  EXPECT_NE(checksum, checksum_of("v", DType::kF32, {2}, "12345678"));
  EXPECT_NE(checksum, checksum_of("w", DType::kI32, {2}, "12345678"));
  EXPECT_NE(checksum, checksum_of("w", DType::kF32, {2, 1}, "12345678"));
  EXPECT_NE(checksum, checksum_of("w", DType::kF32, {2}, "12345679"));
}

TEST(Checksum, IsWrittenAsHexadecimalDigits) {
  EXPECT_EQ(to_hex({0x0123456789abcdef, 0xfedcba9876543210}), "0123456789abcdeffedcba9876543210");
}

Header header_with(const std::string& recorded) {
  return parse_header(R"({"__metadata__":{"torch_safetensors.xxh3_128":")" + recorded +
                          R"("},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                          R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                      2);
}

TEST(Checksum, AreRecordedInTheOrderOfNames) {
  const std::string_view names[] = {"b", "a"};
  const Checksum checksums[] = {{1, 2}, {3, 4}};
  const std::string text = join_checksums(names, checksums);
  EXPECT_EQ(text, to_hex({3, 4}) + to_hex({1, 2}));
  EXPECT_EQ(recorded_checksums(header_with(text)), (std::vector<Checksum>{{3, 4}, {1, 2}}));
}

TEST(Checksum, RefusesWhatIsNotOneForEachTensor) {
  const auto refusal = [](const std::string& text) {
    return error_of([&] { recorded_checksums(header_with(text)); });
  };
  const std::string in_metadata = "metadata: 'torch_safetensors.xxh3_128': ";
  EXPECT_EQ(refusal(""), in_metadata + "0 digits, but 2 tensors have 64");
  EXPECT_EQ(refusal(std::string(63, '0')), in_metadata + "63 digits, but 2 tensors have 64");
  EXPECT_EQ(refusal(std::string(63, '0') + "x"),
            in_metadata + "'000000000000000x' is not a hexadecimal number");
}

/// The place of a checksum in that JSON, of a header with U8 tensors of one element.
std::string digits_at(const std::string& json, uint64_t data_size, std::string_view name) {
  const Header header = parse_header(json, data_size);
  return json.substr(find_recorded_checksum(json, header, *header.find(name)), kChecksumDigits);
}

TEST(Checksum, AreFoundInTheHeader) {
  const std::string of_a = to_hex({3, 4});
  const std::string of_b = to_hex({1, 2});
  const std::string tensors = R"("b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  const std::string recorded = R"("torch_safetensors.xxh3_128":")" + of_a + of_b + '"';
  for (const std::string& json : {R"({"__metadata__":{)" + recorded + "}," + tensors,
                                  // The same text as the value of another key.
                                  R"({"__metadata__":{"a":"\"torch_safetensors.xxh3_128\":\")" + of_a + of_b +
                                      R"(\"",)" + recorded + "}," + tensors}) {
    EXPECT_EQ(digits_at(json, 2, "a"), of_a);
    EXPECT_EQ(digits_at(json, 2, "b"), of_b);
    EXPECT_TRUE(records_checksums(parse_header(json, 2)));
  }
}

TEST(Checksum, AreNotLookedForWhereOthersWroteThem) {
  const std::string digits = to_hex({3, 4});
  const std::string tensor = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  for (const std::string& metadata : {R"("torch_safetensors.xxh3_128": ")" + digits + '"',
                                      R"("torch_safetensors.xxh3_12\u0038":")" + digits + '"',
                                      R"( "torch_safetensors.xxh3_128":")" + digits + '"'}) {
    EXPECT_EQ(
        error_of([&] { digits_at(R"({"__metadata__":{)" + metadata + "}," + tensor, 1, "a"); }),
        "metadata: 'torch_safetensors.xxh3_128': not written as save_file writes it; save the file anew");
  }
  EXPECT_FALSE(records_checksums(parse_header("{}", 0)));
}

TEST(Checksum, SaysThatThereAreNone) {
  for (const char* const json : {"{}", R"({"__metadata__":{"a":"b"}})"}) {
    EXPECT_EQ(error_of([&] { recorded_checksums(parse_header(json, 0)); }),
              "no checksums to verify: save it with checksum=True (metadata 'torch_safetensors.xxh3_128')");
  }
}

}  // namespace
}  // namespace torch_safetensors::format
