// A graph with its kernels, ready to run on the calling thread.
#ifndef TESSERA_CPP_EXT_GRAPH_COMPILED_GRAPH_H_
#define TESSERA_CPP_EXT_GRAPH_COMPILED_GRAPH_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cpp_ext/graph/step.h"
#include "cpp_ext/graph/step_runner.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/common_runtime/executor.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/public/session_options.h"

namespace tessera {

// What the executors of one graph share. Outlives them.
struct ExecutorEnvironment {
  const tensorflow::SessionOptions* options;
  const tensorflow::DeviceMgr* devices;
  tensorflow::Device* cpu;
};

// What a graph, and the functions that it may call, need of a step.
struct GraphFacts {
  bool has_lookup = false;   // TesseraLookup: the step has a route, and ends on another thread
  bool has_batches = false;  // TesseraBatchedCall: likewise
  bool has_functions = false;
  bool needs_rendezvous = false;
  std::string session_op;  // an op that needs a session, empty if there is none
};

// Immutable after Build; RunAsync may be called from any thread, any number of times at once.
class CompiledGraph : public StepRunner {
 public:
  // Called with every kernel that was created.
  using OnKernel = std::function<void(tensorflow::OpKernel*)>;

  // `library` outlives the result; `functions` are those that the graph may call. UNIMPLEMENTED when the graph needs
  // what only a session has.
  static absl::StatusOr<std::unique_ptr<CompiledGraph>> Build(const ExecutorEnvironment& environment,
                                                              const tensorflow::Graph& graph,
                                                              const tensorflow::FunctionLibraryDefinition& functions,
                                                              tensorflow::FunctionLibraryRuntime* library,
                                                              const OnKernel& on_kernel);
  ~CompiledGraph() override;

  // Whether a step needs a step slot, and may end later, on another thread.
  bool needs_context() const override { return facts_.has_lookup || facts_.has_batches; }
  bool has_lookup() const { return facts_.has_lookup; }
  // Whether a kernel may end on another thread than the one that runs the step.
  bool has_async_kernels() const { return has_async_kernels_; }
  bool ends_elsewhere() const override { return has_async_kernels_; }
  const std::string& executor_type() const { return executor_type_; }

  // The step's args() are the graph's _Args, its results() the _Retvals.
  void RunAsync(Step* step) const override;

 private:
  explicit CompiledGraph(const ExecutorEnvironment& environment) : environment_(environment) {}
  absl::Status CreateExecutor(const tensorflow::Graph& graph, tensorflow::FunctionLibraryRuntime* library,
                              const OnKernel& on_kernel);

  const ExecutorEnvironment environment_;
  GraphFacts facts_;
  bool has_async_kernels_ = false;
  std::string executor_type_;
  std::unique_ptr<tensorflow::Executor> executor_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_COMPILED_GRAPH_H_
