#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>

#include "cpp_ext/graph/json_base64.h"
#include "cpp_ext/graph/json_decode.h"
#include "cpp_ext/graph/json_encode.h"
#include "cpp_ext/graph/json_number.h"
#include "cpp_ext/graph/json_signature.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/json_wire.h"

namespace tessera {
namespace {

template <typename T>
std::string Printed(T value) {
  char buffer[kDecimalBytes];
  return std::string(PrintDecimal(value, buffer));
}

TEST(JsonNumberTest, KnownTexts) {
  EXPECT_EQ(Printed(0.0f), "0.0");
  EXPECT_EQ(Printed(-0.0f), "-0.0");
  EXPECT_EQ(Printed(0.2f), "0.2");
  EXPECT_EQ(Printed(3.0), "3.0");
  EXPECT_EQ(Printed(9000000.0f), "9e+06");
  EXPECT_EQ(Printed(0.00003f), "3e-05");
  EXPECT_EQ(Printed(1.0f / 3.0f), "0.333333343");
  EXPECT_EQ(Printed(1.0 / 3.0), "0.33333333333333331");
  EXPECT_EQ(Printed(16777217.0), "16777217.0");
  EXPECT_EQ(Printed(std::numeric_limits<float>::infinity()), "Infinity");
  EXPECT_EQ(Printed(-std::numeric_limits<double>::infinity()), "-Infinity");
  EXPECT_EQ(Printed(std::numeric_limits<float>::quiet_NaN()), "NaN");
}

TEST(JsonNumberTest, AnyNumberIsReadAgainAsItWas) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t bits = random();
    double wide;
    float narrow;
    memcpy(&wide, &bits, sizeof(wide));
    memcpy(&narrow, &bits, sizeof(narrow));
    if (std::isfinite(wide)) {
      EXPECT_EQ(strtod(Printed(wide).c_str(), nullptr), wide);
    }
    if (std::isfinite(narrow)) {
      EXPECT_EQ(strtof(Printed(narrow).c_str(), nullptr), narrow);
    }
    EXPECT_LT(Printed(wide).size(), kDecimalBytes);
  }
}

TEST(JsonBase64Test, KnownTexts) {
  for (const auto& [text, bytes] :
       std::initializer_list<std::pair<std::string, std::string>>{{"", ""},
                                                                  {"aGk=", "hi"},
                                                                  {"aGk", "hi"},
                                                                  {" aG k=\n", "hi"},
                                                                  {"AAAA", std::string(3, '\0')},
                                                                  {"/+8=", "\xff\xef"}}) {
    std::string decoded;
    EXPECT_TRUE(AppendBase64Decoded(text, &decoded)) << text;
    EXPECT_EQ(decoded, bytes);
  }
  for (const char* text : {"a", "aGk==", "a=Gk", "=", "aGk=x", "aG-k", "aGkx="}) {
    std::string decoded;
    EXPECT_FALSE(AppendBase64Decoded(text, &decoded)) << text;
  }
}

TEST(JsonBase64Test, ThereAndBack) {
  std::mt19937 random(7);
  for (size_t size = 0; size < 200; ++size) {
    std::string bytes, text, again;
    for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(random()));
    AppendBase64Encoded(bytes, &text);
    ASSERT_TRUE(AppendBase64Decoded(text, &again));
    EXPECT_EQ(again, bytes);
  }
}

TEST(JsonValueTest, QuotesAreCut) {
  rapidjson::Document document;
  ASSERT_TRUE(ParseJsonObject("{\"a\": \"" + std::string(10'000, 'x') + "\"}", &document).ok());
  EXPECT_LT(JsonDebugString(document).size(), 600u);
}

TEST(JsonSignatureTest, FindsInputsByAlias) {
  const auto entry = [](std::string_view key, std::string_view value) {
    std::string map_entry, field;
    AppendDelimited(1, key, &map_entry);
    AppendDelimited(2, value, &map_entry);
    AppendDelimited(1, map_entry, &field);
    return field;
  };
  const auto info = [](uint64_t dtype) {
    std::string text;
    AppendVarintField(2, dtype, &text);
    return text;
  };
  const std::string defs = entry("other", "") + entry("s", entry("b", info(101)) + entry("a", info(9)));
  std::vector<JsonInput> inputs;
  ASSERT_TRUE(FindSignatureInputs(defs, "s", &inputs));
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].alias, "a");
  EXPECT_EQ(inputs[0].dtype, 9);
  EXPECT_EQ(inputs[1].dtype, 1);  // of a variable
  EXPECT_FALSE(FindSignatureInputs(defs, "none", &inputs));
}

}  // namespace
}  // namespace tessera
