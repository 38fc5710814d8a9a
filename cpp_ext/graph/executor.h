// Runs one signature on the calling thread, without TensorFlow's session and
// its thread pool.
#ifndef TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_
#define TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/graph/step.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/common_runtime/executor.h"
#include "tensorflow/core/common_runtime/graph_execution_state.h"
#include "tensorflow/core/common_runtime/process_function_library_runtime.h"
#include "tensorflow/core/public/session_options.h"

namespace tessera {

// What the executors of one graph share. Outlives them.
struct ExecutorEnvironment {
  const tensorflow::SessionOptions* options;
  const tensorflow::DeviceMgr* devices;
  tensorflow::Device* cpu;
};

// Immutable after Build; RunAsync may be called from any thread, any number of
// times at once.
class GraphExecutor {
 public:
  // Optimises the part of the graph that the signature needs and creates its
  // kernels. Fails when the graph needs what only a session has (several
  // devices, session handles, collectives); the caller then uses a session.
  // `state` is the whole graph, placed; it is needed no more afterwards.
  static absl::StatusOr<std::unique_ptr<GraphExecutor>> Build(const ExecutorEnvironment& environment,
                                                              const Signature& signature,
                                                              tensorflow::GraphExecutionState* state);
  ~GraphExecutor();

  // Whether the graph has TesseraLookup ops: a step then ends later, on another
  // thread, and needs a step slot.
  bool has_lookup() const { return has_lookup_; }
  // Whether a kernel may end on another thread than the one that runs the step.
  bool has_async_kernels() const { return has_async_kernels_; }
  const std::string& executor_type() const { return executor_type_; }
  // Types of the signature's inputs and fetches, as the graph has them.
  const tensorflow::DataTypeVector& input_types() const { return input_types_; }
  const tensorflow::DataTypeVector& fetch_types() const { return fetch_types_; }

  // Runs `step`, whose args() are the inputs in the signature's order and of
  // input_types(), and then calls step->Finish, possibly before this returns.
  // Without TesseraLookup everything happens on this thread. The step's
  // results() are the signature's fetches. The executor must be kept alive
  // until Finish has been called and, when it is called on this thread, until
  // RunAsync has returned.
  void RunAsync(Step* step) const;

 private:
  GraphExecutor() = default;
  absl::Status CreateExecutor(const ExecutorEnvironment& environment, const tensorflow::Graph& graph,
                              tensorflow::FunctionLibraryRuntime* library);

  const tensorflow::SessionOptions* options_ = nullptr;
  const tensorflow::DeviceMgr* devices_ = nullptr;
  tensorflow::Device* cpu_ = nullptr;
  tensorflow::DataTypeVector input_types_;
  tensorflow::DataTypeVector fetch_types_;
  bool has_lookup_ = false;
  bool has_functions_ = false;
  bool has_async_kernels_ = false;
  bool needs_rendezvous_ = false;
  std::string executor_type_;
  // Destroyed from the last to the first: kernels use the functions.
  std::unique_ptr<tensorflow::FunctionLibraryDefinition> function_definitions_;
  std::unique_ptr<tensorflow::ProcessFunctionLibraryRuntime> functions_;
  std::unique_ptr<tensorflow::Executor> executor_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_EXECUTOR_H_
