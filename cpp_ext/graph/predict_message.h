// tensorflow.serving.PredictResponse on the wire.
#ifndef TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_
#define TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cpp_ext/graph/response_wire.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

struct PredictOutput {
  absl::string_view alias;
  const tensorflow::Tensor* tensor;
};

// Encodes in the given order. INVALID_ARGUMENT names an output whose dtype
// cannot be sent; RESOURCE_EXHAUSTED when there is no memory.
absl::Status EncodePredictResponse(absl::Span<const PredictOutput> outputs, const ServedSpec& spec, bool tensor_content,
                                   EncodedResponse* response);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_
