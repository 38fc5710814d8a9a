// One loaded version of a model: a SavedModel or a package directory, ready to
// run.
#ifndef TESSERA_CPP_EXT_GRAPH_GRAPH_H_
#define TESSERA_CPP_EXT_GRAPH_GRAPH_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/graph/batch_groups.h"
#include "cpp_ext/graph/executor.h"
#include "cpp_ext/graph/session_runner.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/ops/blob_registry.h"
#include "tensorflow/core/public/session.h"

namespace tessera {

// How a signature runs. kAsync: with lookups or batches; its steps need a context (a valid slot, and a pin).
enum class RunMode { kInline, kAsync, kCallable, kRefused };

// One signature with what runs it. Immutable, thread-safe.
class Runnable {
 public:
  const Signature& signature() const { return signature_; }
  RunMode mode() const { return mode_; }
  // Null unless the mode is kInline or kAsync.
  const GraphExecutor* executor() const { return executor_.get(); }
  // Why the mode is kCallable or kRefused.
  const absl::Status& reason() const { return reason_; }
  // Whether a cancellation can reach a step while it runs.
  bool cancellable() const { return mode_ == RunMode::kCallable || (executor_ && executor_->has_async_kernels()); }

  // Runs a step whose args() are the signature's inputs; see
  // GraphExecutor::RunAsync. INVALID_ARGUMENT names an input of the wrong
  // dtype. The graph must be kept alive likewise.
  void RunAsync(Step* step) const;

 private:
  friend class LoadedGraph;
  absl::Status CheckTypes(const Step& step) const;

  Signature signature_;
  RunMode mode_ = RunMode::kRefused;
  absl::Status reason_;
  std::unique_ptr<GraphExecutor> executor_;
  std::unique_ptr<SessionRunner> session_runner_;
};

struct LoadOptions {
  std::vector<std::string> tags;
  std::map<std::string, std::string> blobs;  // SHA-256 (hex) → file
  int intra_op_threads = 0;                  // Eigen's pool, shared by the process; 0: one a core
  bool sessions_only = false;                // for tests: run everything as kCallable
  std::string name;                          // "model:version", for messages
  bool batching = true;                      // false: TesseraBatch passes its tensors through
  BatchLane* lane = nullptr;                 // null: the process's lane for the CPU
};

// Immutable after Load; thread-safe. Destruction may take long (it frees the
// weights).
class LoadedGraph {
 public:
  // NOT_FOUND, DATA_LOSS and what TensorFlow says; texts name the file, the
  // blob or the signature.
  static absl::StatusOr<std::shared_ptr<LoadedGraph>> Load(const std::string& path, const LoadOptions& options);
  ~LoadedGraph();

  // Null when there is no such signature.
  const Runnable* Find(absl::string_view signature) const;
  const std::map<std::string, Runnable, std::less<>>& runnables() const { return runnables_; }
  // A serialized tensorflow.serving.SignatureDefMap.
  const std::string& signature_defs() const { return signature_defs_; }
  // Highest table position that a TesseraLookup names, plus one.
  int64_t lookup_tables() const { return lookup_tables_; }
  // The regions that are batched; their policies may be changed while the graph serves.
  BatchGroups& batch_groups() const { return *batch_groups_; }

 private:
  LoadedGraph() = default;
  absl::Status LoadSession(const std::string& path, const tensorflow::MetaGraphDef& meta_graph);
  void BuildRunnables(tensorflow::MetaGraphDef* meta_graph, const LoadOptions& options);
  void BuildRunnable(const tensorflow::SignatureDef& def, const ExecutorEnvironment& environment,
                     tensorflow::GraphExecutionState* state, BatchGroups* batching, Runnable* runnable);

  tensorflow::SessionOptions options_;
  std::string signature_defs_;
  int64_t lookup_tables_ = 0;
  std::unique_ptr<BatchGroups> batch_groups_;
  // Destroyed from the last to the first: runnables use the session's devices,
  // whose variables are blobs' tensors.
  std::unique_ptr<BlobSet> blobs_;
  std::unique_ptr<tensorflow::Session> session_;
  std::map<std::string, Runnable, std::less<>> runnables_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_GRAPH_H_
