// Classify, Regress and MultiInference: from examples to a tensor, from tensors to responses. The checks, codes and
// texts are TensorFlow Serving's.
#ifndef TESSERA_CPP_EXT_GRAPH_INFERENCE_MESSAGE_H_
#define TESSERA_CPP_EXT_GRAPH_INFERENCE_MESSAGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/response_wire.h"
#include "cpp_ext/graph/signature.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

constexpr absl::string_view kClassifyMethodName = "tensorflow/serving/classify";
constexpr absl::string_view kRegressMethodName = "tensorflow/serving/regress";

// The examples of a request as a string vector, each behind the context. INVALID_ARGUMENT: there are none, or the
// copies of the context take more than 256 MiB.
absl::StatusOr<tensorflow::Tensor> ExamplesTensor(const RequestView& request);

// Positions among a signature's outputs, -1 for what it does not have.
struct InferenceOutputs {
  int classes = -1;
  int scores = -1;
  int regressions = -1;
};

// What a signature gives to Classify or to Regress, which `method` is. INVALID_ARGUMENT when its inputs and outputs are
// not those of the method; with `check_method_name` also when it was not exported for it.
absl::StatusOr<InferenceOutputs> FindInferenceOutputs(Method method, const Signature& signature,
                                                      bool check_method_name);

// What one task gave: classes and scores, either of which may be null, or regressions.
class InferenceResult {
 public:
  // The tensors must outlive the result. INVALID_ARGUMENT: their dtypes or shapes do not fit together or to `examples`.
  static absl::StatusOr<InferenceResult> Classify(const tensorflow::Tensor* classes, const tensorflow::Tensor* scores,
                                                  int64_t examples);
  static absl::StatusOr<InferenceResult> Regress(const tensorflow::Tensor& regressions, int64_t examples);

  bool is_regression() const { return is_regression_; }
  // As a ClassificationResult or a RegressionResult.
  size_t size_bytes() const;
  uint8_t* Write(uint8_t* to) const;

 private:
  size_t ClassBytes(int64_t position) const;
  size_t ClassificationBytes(int64_t example) const;

  bool is_regression_ = false;
  int64_t examples_ = 0;
  int64_t classes_ = 0;  // an example
  const tensorflow::tstring* labels_ = nullptr;
  const float* values_ = nullptr;  // scores or regressions
};

// A ClassificationResponse or RegressionResponse.
absl::Status EncodeInferenceResponse(const InferenceResult& result, const ServedSpec& spec, EncodedResponse* response);

struct TaskResult {
  InferenceResult result;
  ServedSpec spec;
};
absl::Status EncodeMultiInferenceResponse(absl::Span<const TaskResult> results, EncodedResponse* response);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_INFERENCE_MESSAGE_H_
