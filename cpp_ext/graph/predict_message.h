// tensorflow.serving.PredictRequest and PredictResponse on the wire.
#ifndef TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_
#define TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// A request as views into its message; tensors are not decoded yet.
struct PredictRequestView {
  struct Input {
    absl::string_view alias;
    absl::string_view tensor;  // a TensorProto
  };
  enum class Choice { kLatest, kVersion, kLabel };

  bool has_model_spec = false;
  absl::string_view model;
  absl::string_view signature;  // empty: the default
  Choice choice = Choice::kLatest;
  int64_t version = 0;
  absl::string_view label;
  absl::InlinedVector<Input, 8> inputs;  // each alias once; the last value wins, as in a protobuf map
  absl::InlinedVector<absl::string_view, 4> output_filter;

  void Clear() {
    has_model_spec = false;
    model = signature = label = absl::string_view();
    choice = Choice::kLatest;
    version = 0;
    inputs.clear();
    output_filter.clear();
  }
};

// Reads `message`, which must outlive the view. Unknown fields are skipped.
// INVALID_ARGUMENT if it is not protobuf.
absl::Status ParsePredictRequest(absl::string_view message, PredictRequestView* view);

struct PredictOutput {
  absl::string_view alias;
  const tensorflow::Tensor* tensor;
};

// A response message in one allocation; `data` is to be given to `free`.
struct EncodedResponse {
  uint8_t* data = nullptr;
  size_t size_bytes = 0;
};

// Encodes in the given order. INVALID_ARGUMENT names an output whose dtype
// cannot be sent; RESOURCE_EXHAUSTED when there is no memory.
absl::Status EncodePredictResponse(absl::Span<const PredictOutput> outputs, absl::string_view model, int64_t version,
                                   absl::string_view signature, bool tensor_content, EncodedResponse* response);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PREDICT_MESSAGE_H_
