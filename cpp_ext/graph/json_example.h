// The body of a REST classify or regress → the `input` of its request on the wire: tf.Examples.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_EXAMPLE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_EXAMPLE_H_

#include <rapidjson/document.h>

#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

// Appends the field `input`. INVALID_ARGUMENT with TensorFlow Serving's texts; `wire` is of no use then.
Status AppendExamples(const rapidjson::Document& document, std::string* wire);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_EXAMPLE_H_
