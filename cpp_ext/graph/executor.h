// Runs one signature on the calling thread, without TensorFlow's session and
// its thread pool.
#ifndef TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_
#define TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cpp_ext/graph/batch_region.h"
#include "cpp_ext/graph/compiled_graph.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/graph/step.h"
#include "tensorflow/core/common_runtime/graph_execution_state.h"
#include "tensorflow/core/common_runtime/process_function_library_runtime.h"

namespace tessera {

// Immutable after Build; RunAsync may be called from any thread, any number of
// times at once.
class GraphExecutor : public StepRunner {
 public:
  // Optimises the part of the graph that the signature needs and creates its
  // kernels. Fails when the graph needs what only a session has (several
  // devices, session handles, collectives); the caller then uses a session.
  // `state` is the whole graph, placed; it is needed no more afterwards.
  // `batching` is null when TesseraBatch is to pass its tensors through.
  static absl::StatusOr<std::unique_ptr<GraphExecutor>> Build(const ExecutorEnvironment& environment,
                                                              const Signature& signature,
                                                              tensorflow::GraphExecutionState* state,
                                                              BatchGroups* batching);
  ~GraphExecutor() override;

  // Whether a step needs a step slot, and may end later, on another thread.
  bool needs_context() const override { return graph_->needs_context(); }
  // Whether a kernel may end on another thread than the one that runs the step.
  bool has_async_kernels() const { return graph_->has_async_kernels(); }
  bool ends_elsewhere() const override { return has_async_kernels(); }
  const std::string& executor_type() const { return graph_->executor_type(); }
  // Types of the signature's inputs and fetches, as the graph has them.
  const tensorflow::DataTypeVector& input_types() const { return input_types_; }
  const tensorflow::DataTypeVector& fetch_types() const { return fetch_types_; }
  const std::vector<std::shared_ptr<BatchRegion>>& regions() const { return regions_; }

  // The step's args() are the inputs in the signature's order and of
  // input_types(), its results() the signature's fetches. Without TesseraLookup
  // and batches everything happens on this thread.
  void RunAsync(Step* step) const override { graph_->RunAsync(step); }

 private:
  GraphExecutor() = default;
  absl::StatusOr<std::unique_ptr<tensorflow::Graph>> Optimize(const ExecutorEnvironment& environment,
                                                              const Signature& signature,
                                                              tensorflow::GraphExecutionState* state);
  absl::Status BuildRegions(const ExecutorEnvironment& environment, tensorflow::Graph* graph, BatchGroups* batching);

  tensorflow::DataTypeVector input_types_;
  tensorflow::DataTypeVector fetch_types_;
  // Destroyed from the last to the first: kernels use the functions and the
  // regions.
  std::unique_ptr<tensorflow::FunctionLibraryDefinition> function_definitions_;
  std::unique_ptr<tensorflow::ProcessFunctionLibraryRuntime> functions_;
  tensorflow::FunctionLibraryRuntime* library_ = nullptr;
  std::vector<std::shared_ptr<BatchRegion>> regions_;
  std::unique_ptr<CompiledGraph> graph_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_
