// What a request runs, and how its answer is made of the results: the part that differs between methods.
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_WORK_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_WORK_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "cpp_ext/graph/graph.h"
#include "cpp_ext/graph/inference_message.h"
#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/response_wire.h"
#include "cpp_ext/graph/step.h"

namespace tessera {

struct AnswerOptions {
  bool tensor_content = false;      // Predict: answer with `tensor_content` instead of typed fields
  bool check_method_names = false;  // signatures serve only the method that they were exported for
};

// Reused by one request after the other. Not thread-safe. The graph, the view and the step must outlive the use; the
// step's results are the answer's until Clear.
class RequestWork {
 public:
  explicit RequestWork(const AnswerOptions& options) : options_(options) {}

  // Finds what to run and decodes the inputs into `step`. TensorFlow Serving's codes and texts.
  absl::Status Prepare(Method method, const RequestView& request, const LoadedGraph& graph, Step* step);
  // What runs `step` now. Null before Prepare was OK.
  const Runnable* runnable() const { return runnable_; }
  // Whether a cancellation can reach what runs, now or in a later run.
  bool cancellable() const;
  // Whether a run needs a step slot and a pin.
  bool needs_context() const;
  // REQUIRES: a run of the step has ended with OK. Whether another one is needed; the step is then ready for it.
  bool Advance(Step* step);
  // REQUIRES: Advance was false. `version` is what was served.
  absl::Status Encode(const RequestView& request, int64_t version, Step* step, EncodedResponse* response);

  // Of Classify, Regress and MultiInference.
  size_t examples() const { return static_cast<size_t>(examples_); }
  void Clear();

 private:
  // One classification or regression of the request.
  struct Task {
    const Runnable* runnable;
    InferenceOutputs outputs;
    std::vector<tensorflow::Tensor> results;  // when tasks run one after the other
  };

  absl::Status PreparePredict(const RequestView& request, const LoadedGraph& graph, Step* step);
  absl::Status PrepareInference(const RequestView& request, const LoadedGraph& graph, Step* step);
  absl::Status PrepareTasks(const RequestView& request, const LoadedGraph& graph, Step* step);
  absl::Status FeedExamples(const RequestView& request, Step* step);
  absl::StatusOr<InferenceResult> ResultOf(const Task& task, Step* step) const;

  const AnswerOptions options_;
  Method method_ = Method::kPredict;
  const Runnable* runnable_ = nullptr;
  absl::InlinedVector<const SignatureOutput*, 4> outputs_;  // Predict
  absl::InlinedVector<Task, 2> tasks_;                      // the others
  bool one_by_one_ = false;
  size_t running_ = 0;  // the task that runs, when they run one after the other
  int64_t examples_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_WORK_H_
