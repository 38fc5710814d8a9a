// Feeds REST bodies, and responses, to everything that converts them. The first byte says which, and with what dtype.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cpp_ext/graph/json_decode.h"
#include "cpp_ext/graph/json_encode.h"
#include "cpp_ext/graph/json_example.h"
#include "cpp_ext/graph/json_value.h"

using namespace tessera;

namespace {

void Require(bool condition) {
  if (!condition) abort();
}

void Decode(std::string_view body, int dtype, bool examples) {
  rapidjson::Document document;
  std::string_view signature;
  if (!ParseJsonObject(body, &document).ok() || !JsonSignatureName(document, &signature).ok()) return;
  std::string wire;
  if (examples) {
    Require(!AppendExamples(document, &wire).ok() || !wire.empty());
    return;
  }
  JsonFormat format;
  for (const auto& inputs : {std::vector<JsonInput>{{"a", dtype}}, std::vector<JsonInput>{{"a", dtype}, {"b", 1}}}) {
    wire.clear();
    Require(!AppendPredictInputs(document, inputs, signature, &format, &wire).ok() || !wire.empty());
  }
}

void Encode(std::string_view response) {
  std::string json;
  const auto check = [&json](const Status& status) {
    if (!status.ok()) return;
    rapidjson::Document document;
    // What is printed can be read: but for bytes that are not UTF-8, which are passed on, anything is an object.
    Require(ParseJsonObject(json, &document).ok());
  };
  check(PredictResponseToJson(response, JsonFormat::kRow, &json));
  check(PredictResponseToJson(response, JsonFormat::kColumnar, &json));
  check(ClassificationResponseToJson(response, &json));
  check(RegressionResponseToJson(response, &json));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  if (size_bytes == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  constexpr int kResponses = 30;
  constexpr int kExamples = 31;
  const int kind = data[0] % 32;
  if (kind == kResponses) {
    Encode(rest);
  } else {
    Decode(rest, kind, kind == kExamples);
  }
  return 0;
}
