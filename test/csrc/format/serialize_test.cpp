#include "format/serialize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "error_of.h"

namespace torch_safetensors::format {
namespace {

using std::string_literals::operator""s;
using Shape = std::vector<int64_t>;

std::string json_of(const SerializedHeader& header) { return header.bytes.substr(kPrefixSize); }

std::string refusal(std::span<const TensorSpec> specs, const Metadata* metadata = nullptr,
                    int64_t alignment = 0) {
  return error_of([&] { serialize_header(specs, metadata, alignment); });
}

constexpr int64_t kAlignments[] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

TEST(Serialize, WritesAnEmptyFileAsSixteenBytes) {
  const SerializedHeader header = serialize_header({}, nullptr);
  EXPECT_EQ(header.bytes, "\x08\0\0\0\0\0\0\0{}      "s);
  EXPECT_TRUE(header.order.empty());
  EXPECT_EQ(header.data_size, 0u);
}

TEST(Serialize, WritesCompactJsonPaddedWithSpaces) {
  const Shape shape{2, 3};
  const TensorSpec specs[] = {{"w", DType::kF32, shape}};
  const SerializedHeader header = serialize_header(specs, nullptr);
  EXPECT_EQ(header.bytes, "\x40\0\0\0\0\0\0\0"s +
                              R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})" + "       ");
  EXPECT_EQ(header.bytes.size() % 8, 0u);
  EXPECT_EQ(header.data_size, 24u);
}

TEST(Serialize, PadsToAMultipleOfEightOfEveryLength) {
  for (size_t length = 0; length < 16; ++length) {
    const std::string name(length, 'a');
    const TensorSpec specs[] = {{name, DType::kU8, {}}};
    const std::string bytes = serialize_header(specs, nullptr).bytes;
    EXPECT_EQ(bytes.size() % 8, 0u);
    EXPECT_EQ(static_cast<unsigned char>(bytes[0]), bytes.size() - kPrefixSize);
    EXPECT_LT(bytes.size() - bytes.find_last_not_of(' '), 9u);
    EXPECT_EQ(parse_header_size(bytes, bytes.size() + 1), bytes.size() - kPrefixSize);
    EXPECT_EQ(parse_header(json_of({bytes, {}, 0}), 1).tensors()[0].name, name);
  }
}

TEST(Serialize, OrdersByDTypeDownwardsThenByTheBytesOfTheName) {
  const Shape one{1};
  const TensorSpec specs[] = {{"b", DType::kBool, one}, {"\u00E9", DType::kU64, one},
                              {"z", DType::kU64, one},  {"a", DType::kBool, one},
                              {"c", DType::kF64, one},  {"B", DType::kBool, one}};
  const SerializedHeader header = serialize_header(specs, nullptr);
  EXPECT_EQ(header.order, (std::vector<size_t>{2, 1, 4, 5, 3, 0}));
  EXPECT_EQ(header.data_size, 27u);
  const Header parsed = parse_header(json_of(header), 27);
  EXPECT_EQ(parsed.tensors()[1].name, "\u00E9");
  EXPECT_EQ(parsed.tensors()[2].begin, 16u);
  EXPECT_EQ(parsed.tensors()[5].end, 27u);
}

TEST(Serialize, WritesMetadataFirstAndSortedByKey) {
  const Metadata metadata{{"b", "2"}, {"a", "1"}, {"", ""}};
  EXPECT_EQ(json_of(serialize_header({}, &metadata)), R"({"__metadata__":{"":"","a":"1","b":"2"}})");
  const TensorSpec specs[] = {{"w", DType::kU8, {}}};
  EXPECT_EQ(json_of(serialize_header(specs, &metadata)).substr(0, 91),
            R"({"__metadata__":{"":"","a":"1","b":"2"},"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})");
}

TEST(Serialize, WritesEmptyMetadataAsAnEmptyObject) {
  const Metadata metadata;
  EXPECT_EQ(json_of(serialize_header({}, &metadata)), R"({"__metadata__":{}}     )");
  EXPECT_EQ(parse_header(json_of(serialize_header({}, &metadata)), 0).metadata(), metadata);
}

TEST(Serialize, EscapesAsTheReferenceDoes) {
  const std::string name = "\"\\\b\f\n\r\t/\x01\x1F\x7F\0\u00E9\U0001F600"s;
  const TensorSpec specs[] = {{name, DType::kU8, {}}};
  const std::string json = json_of(serialize_header(specs, nullptr));
  EXPECT_EQ(json.substr(0, json.find(':')),
            "{\"\\\"\\\\\\b\\f\\n\\r\\t/\\u0001\\u001f\x7F\\u0000\u00E9\U0001F600\"");
  EXPECT_EQ(parse_header(json, 1).tensors()[0].name, name);
}

TEST(Serialize, ReadsBackEveryCharacterBelow256) {
  for (int c = 0; c < 256; ++c) {
    const std::string name =
        c < 0x80 ? std::string(1, static_cast<char>(c))
                 : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    const Metadata metadata{{name, name}};
    const TensorSpec specs[] = {{name, DType::kU8, {}}};
    const Header header = parse_header(json_of(serialize_header(specs, &metadata)), 1);
    EXPECT_EQ(header.tensors()[0].name, name);
    EXPECT_EQ(header.metadata(), metadata);
  }
}

TEST(Serialize, EscapesAtEveryPlaceOfAName) {
  for (size_t before = 0; before < 20; ++before) {
    for (const size_t after : {0, 1, 9}) {
      const std::string name = std::string(before, 'a') + "\n\"" + std::string(after, 'b') + "\x1F";
      const TensorSpec specs[] = {{name, DType::kU8, {}}};
      const std::string json = json_of(serialize_header(specs, nullptr));
      EXPECT_EQ(json.substr(0, json.find(':')),
                "{\"" + std::string(before, 'a') + "\\n\\\"" + std::string(after, 'b') + "\\u001f\"");
    }
  }
}

TEST(Serialize, WritesTensorsWithoutBytes) {
  const Shape none{0};
  const TensorSpec specs[] = {{"b", DType::kF32, none}, {"a", DType::kF32, {}}, {"c", DType::kF32, none}};
  const SerializedHeader header = serialize_header(specs, nullptr);
  const Header parsed = parse_header(json_of(header), header.data_size);
  EXPECT_EQ(parsed.tensors()[1].begin, 4u);
  EXPECT_EQ(parsed.tensors()[1].end, 4u);
}

TEST(Serialize, RefusesATensorNamedLikeTheMetadata) {
  const TensorSpec specs[] = {{"__metadata__", DType::kU8, {}}};
  EXPECT_EQ(refusal(specs), "tensor '__metadata__': the format keeps this name for metadata; rename it");
}

TEST(Serialize, RefusesNamesAndMetadataThatAreNotUtf8) {
  const TensorSpec specs[] = {{"a\xED\xA0\x80", DType::kU8, {}}};
  EXPECT_EQ(refusal(specs), R"(tensor 'a\xed\xa0\x80': its name is not UTF-8)");
  const Metadata key{{"\xFF", "v"}};
  EXPECT_EQ(refusal({}, &key), R"(metadata: key '\xff' or its value is not UTF-8)");
  const Metadata value{{"k", "\xFF"}};
  EXPECT_EQ(refusal({}, &value), "metadata: key 'k' or its value is not UTF-8");
}

TEST(Serialize, RefusesSizesThatOverflow) {
  const Shape huge{INT64_MAX, 4};
  const TensorSpec one[] = {{"w", DType::kU8, huge}};
  EXPECT_EQ(refusal(one),
            "tensor 'w': overflow: the size of U8 [9223372036854775807, 4] does not fit in 64 bits");
  const Shape large{(INT64_C(1) << 61) - 1};
  std::vector<std::string> names;
  std::vector<TensorSpec> many;
  for (char c = 'a'; c < 'k'; ++c) {
    names.emplace_back(1, c);
  }
  for (const std::string& name : names) {
    many.push_back({name, DType::kU8, large});
  }
  EXPECT_EQ(refusal(many), "tensor 'i': overflow: the data does not fit in 64 bits");
}

TEST(Serialize, RefusesASizeThatEndsWithinAByte) {
  const Shape three{3};
  const TensorSpec specs[] = {{"w", DType::kF4, three}};
  EXPECT_EQ(refusal(specs), "tensor 'w': F4 [3] takes 12 bits, which do not end at a byte boundary");
}

TEST(Serialize, RefusesAHeaderOverTheLimit) {
  constexpr std::string_view kAround = R"({"__metadata__":{"k":""}})";
  const Metadata fits{{"k", std::string(kMaxHeaderSize - kAround.size(), 'v')}};
  EXPECT_EQ(serialize_header({}, &fits).bytes.size(), kPrefixSize + kMaxHeaderSize);
  const Metadata over{{"k", std::string(kMaxHeaderSize - kAround.size() + 1, 'v')}};
  EXPECT_EQ(refusal({}, &over), "header too large: 100000008 bytes, the limit is 100000000");
}

TEST(Serialize, AlignsEveryTensorToThePowerOfTwoInItsSize) {
  const std::vector<int64_t> sizes{1,   0,    7,    6,     4,    24,   64,    96,  192,   100,    512,
                                   640, 4096, 4100, 12288, 2048, 8192, 10240, 998, 65536, 100001, 1 << 20};
  std::vector<std::string> names;
  std::vector<Shape> shapes;
  for (const int64_t size : sizes) {
    names.push_back("t" + std::to_string(size));
    shapes.push_back({size});
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < sizes.size(); ++i) {
    specs.push_back({names[i], i % 2 == 0 ? DType::kU8 : DType::kBool, shapes[i]});
  }
  for (const int64_t alignment : kAlignments) {
    const SerializedHeader header = serialize_header(specs, nullptr, alignment);
    EXPECT_EQ(header.bytes.size() % alignment, 0u);
    const Header parsed = parse_header(json_of(header), header.data_size);
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(parsed.tensors()[i].name, names[header.order[i]]);
    }
    for (const TensorEntry& tensor : parsed.tensors()) {
      for (int64_t power = 1; power <= alignment && tensor.nbytes() % power == 0; power *= 2) {
        EXPECT_EQ((header.bytes.size() + tensor.begin) % power, 0u) << tensor.name << " of " << alignment;
      }
    }
  }
}

TEST(Serialize, OrdersByAlignmentThenAsEver) {
  const Shape none{0}, three{3}, eight{8}, forty{40}, sixty_four{64};
  const TensorSpec specs[] = {{"d", DType::kU8, three},      {"c", DType::kU8, sixty_four},
                              {"b", DType::kU8, sixty_four}, {"a", DType::kU64, three},
                              {"f", DType::kF64, eight},     {"e", DType::kU8, none},
                              {"g", DType::kU8, forty},      {"h", DType::kF32, three}};
  EXPECT_EQ(serialize_header(specs, nullptr).order, (std::vector<size_t>{3, 4, 7, 2, 1, 0, 5, 6}));
  EXPECT_EQ(serialize_header(specs, nullptr, 64).order, (std::vector<size_t>{4, 2, 1, 5, 3, 6, 7, 0}));
  // Then 64 bytes are as good as 24 and 40.
  EXPECT_EQ(serialize_header(specs, nullptr, 8).order, (std::vector<size_t>{3, 4, 2, 1, 5, 6, 7, 0}));
}

TEST(Serialize, KeepsTheUsualOrderOfManyOfOneAlignment) {
  constexpr size_t kCount = 1000;
  const Shape shapes[] = {{8}, {64}, {24}};
  std::vector<std::string> names;
  for (size_t i = 0; i < kCount; ++i) {
    names.push_back(std::to_string(i * 7919 % kCount));
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < kCount; ++i) {
    specs.push_back({names[i], DType::kU8, shapes[i % 3]});
  }
  std::vector<size_t> expected = serialize_header(specs, nullptr).order;
  std::ranges::stable_partition(expected, [](size_t index) { return index % 3 == 1; });
  EXPECT_EQ(serialize_header(specs, nullptr, 64).order, expected);
}

TEST(Serialize, PadsToTheAlignmentOfEveryLength) {
  for (const int64_t alignment : kAlignments) {
    for (size_t length = 0; length < 2 * static_cast<size_t>(alignment); length += 1 + length / 40) {
      const std::string name(length, 'a');
      const TensorSpec specs[] = {{name, DType::kU8, {}}};
      const std::string plain = serialize_header(specs, nullptr).bytes;
      const std::string bytes = serialize_header(specs, nullptr, alignment).bytes;
      const size_t size = plain.find_last_not_of(' ') + 1;
      EXPECT_EQ(bytes.size() % alignment, 0u);
      EXPECT_LT(bytes.size() - size, static_cast<size_t>(alignment));
      EXPECT_EQ(bytes.substr(kPrefixSize),
                plain.substr(kPrefixSize, size - kPrefixSize) + std::string(bytes.size() - size, ' '));
      EXPECT_EQ(parse_header_size(bytes, bytes.size() + 1), bytes.size() - kPrefixSize);
    }
  }
}

TEST(Serialize, WritesTheBytesOfAnAlignedHeader) {
  const Shape two{2}, four{4};
  const TensorSpec specs[] = {{"b", DType::kF32, two}, {"a", DType::kF32, four}, {"c", DType::kF64, {}}};
  const SerializedHeader header = serialize_header(specs, nullptr, 16);
  EXPECT_EQ(header.bytes, "\xA8\0\0\0\0\0\0\0"s +
                              R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                              R"("c":{"dtype":"F64","shape":[],"data_offsets":[16,24]},)"
                              R"("b":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}})" +
                              "    ");
}

TEST(Serialize, AlignsAnEmptyFile) {
  const std::string bytes = serialize_header({}, nullptr, 64).bytes;
  EXPECT_EQ(bytes, "\x38\0\0\0\0\0\0\0{}"s + std::string(54, ' '));
}

TEST(Serialize, RefusesAnAlignedHeaderOverTheLimit) {
  constexpr std::string_view kAround = R"({"__metadata__":{"k":""}})";
  // The last multiple of 4096 at which data may begin.
  constexpr size_t kLast = (kPrefixSize + kMaxHeaderSize) / 4096 * 4096;
  const Metadata fits{{"k", std::string(kLast - kPrefixSize - kAround.size(), 'v')}};
  EXPECT_EQ(serialize_header({}, &fits, 4096).bytes.size(), kLast);
  const Metadata over{{"k", std::string(kLast - kPrefixSize - kAround.size() + 1, 'v')}};
  EXPECT_EQ(serialize_header({}, &over).bytes.size(), kLast + 8);
  EXPECT_EQ(refusal({}, &over, 4096), "header too large: 100003832 bytes, the limit is 100000000");
}

TEST(Serialize, RefusesOtherAlignments) {
  for (const int64_t alignment : {INT64_MIN, INT64_C(-8), INT64_C(-1), INT64_C(1), INT64_C(2), INT64_C(4),
                                  INT64_C(12), INT64_C(4095), INT64_C(8192), INT64_MAX}) {
    EXPECT_EQ(refusal({}, nullptr, alignment),
              "alignment must be 0 or a power of two from 8 to 4096, not " + std::to_string(alignment));
  }
}

TEST(Serialize, NamesATensorThatCannotBeAligned) {
  const Shape three{3};
  const TensorSpec specs[] = {{"a", DType::kU8, three}, {"w", DType::kF4, three}};
  EXPECT_EQ(refusal(specs, nullptr, 64), refusal(specs));
}

}  // namespace
}  // namespace torch_safetensors::format
