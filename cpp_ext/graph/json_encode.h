// Responses on the wire → JSON, byte for byte as TensorFlow Serving prints it, but for the order of several outputs,
// which is by alias here and arbitrary there.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_ENCODE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_ENCODE_H_

#include <string>
#include <string_view>

#include "cpp_ext/base/status.h"
#include "cpp_ext/graph/json_decode.h"

namespace tessera {

// All: INVALID_ARGUMENT when JSON cannot hold the answer (a dtype, rows of unequal number), INTERNAL when the message
// cannot be read. `json` is only written when OK is returned.
Status PredictResponseToJson(std::string_view response, JsonFormat format, std::string* json);
Status ClassificationResponseToJson(std::string_view response, std::string* json);
Status RegressionResponseToJson(std::string_view response, std::string* json);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_ENCODE_H_
