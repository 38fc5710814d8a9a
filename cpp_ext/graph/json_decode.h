// The body of a REST predict → the `inputs` of a PredictRequest on the wire.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_DECODE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_DECODE_H_

#include <rapidjson/document.h>

#include <string>
#include <string_view>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

// One input of the signature; they are sorted by alias.
struct JsonInput {
  std::string_view alias;
  int dtype = 0;  // tensorflow.DataType
};

// kRow: "instances" and "predictions", one value a row. kColumnar: "inputs" and "outputs", whole tensors.
enum class JsonFormat { kRow, kColumnar };

// The signature that `document`, an object, names; empty for the default. Valid as long as the document.
Status JsonSignatureName(const rapidjson::Document& document, std::string_view* name);

// Appends a field `inputs` for each input. `signature` is for messages. INVALID_ARGUMENT, UNIMPLEMENTED with TensorFlow
// Serving's texts; `wire` is of no use then.
Status AppendPredictInputs(const rapidjson::Document& document, const std::vector<JsonInput>& inputs,
                           std::string_view signature, JsonFormat* format, std::string* wire);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_DECODE_H_
