// The inputs of a signature, as JSON needs them: from the serialized signatures of a graph.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_SIGNATURE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_SIGNATURE_H_

#include <string_view>
#include <vector>

#include "cpp_ext/graph/json_decode.h"

namespace tessera {

// Finds the inputs of signature `name` in `signature_defs`, a serialized SignatureDefMap, sorted by alias; false if
// there is no such signature. The inputs view into `signature_defs`. Linear in the number of signatures, cheap enough
// for every request.
bool FindSignatureInputs(std::string_view signature_defs, std::string_view name, std::vector<JsonInput>* inputs);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_SIGNATURE_H_
