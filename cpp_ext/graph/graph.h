// One loaded version of a model, ready to run: a SavedModel or a package
// directory, or a model of another platform.
#ifndef TESSERA_CPP_EXT_GRAPH_GRAPH_H_
#define TESSERA_CPP_EXT_GRAPH_GRAPH_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cpp_ext/graph/batch_groups.h"
#include "cpp_ext/graph/executor.h"
#include "cpp_ext/graph/foreign_runner.h"
#include "cpp_ext/graph/life.h"
#include "cpp_ext/graph/merged_runnables.h"
#include "cpp_ext/graph/request_batch.h"
#include "cpp_ext/graph/session_runner.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/ops/blob_registry.h"
#include "tensorflow/core/public/session.h"

namespace tessera {

// How a signature runs. kAsync: with lookups or batches, or another platform's; its steps need a context (a valid slot,
// and a pin).
enum class RunMode { kInline, kAsync, kCallable, kRefused };

// One signature with what runs it. Immutable, thread-safe.
class Runnable {
 public:
  const Signature& signature() const { return signature_; }
  RunMode mode() const { return mode_; }
  // Null for what TensorFlow's session or another platform runs.
  const GraphExecutor* executor() const { return executor_.get(); }
  // Null unless whole requests are batched.
  const RequestBatch* request_batch() const { return request_batch_.get(); }
  // Why the mode is kCallable or kRefused.
  const absl::Status& reason() const { return reason_; }
  // Whether a cancellation can reach a step while it runs.
  bool cancellable() const { return request_batch_ != nullptr || (runner_ != nullptr && runner_->ends_elsewhere()); }

  // Runs a step whose args() are the signature's inputs; see
  // GraphExecutor::RunAsync. INVALID_ARGUMENT names an input of the wrong
  // dtype. The graph must be kept alive likewise.
  void RunAsync(Step* step) const;

 private:
  friend class LoadedGraph;
  absl::Status CheckTypes(const Step& step) const;

  HeadSet head_ = 0;  // what MultiInference merges; 0: the signature neither classifies nor regresses
  Signature signature_;
  RunMode mode_ = RunMode::kRefused;
  absl::Status reason_;
  tensorflow::DataTypeVector input_types_;  // empty: the runner checks them
  std::shared_ptr<const GraphExecutor> executor_;
  std::shared_ptr<const StepRunner> runner_;  // `executor_`, or what runs the signature instead
  std::unique_ptr<RequestBatch> request_batch_;
};

struct LoadOptions {
  std::vector<std::string> tags;
  std::map<std::string, std::string> blobs;  // SHA-256 (hex) → file
  int intra_op_threads = 0;                  // Eigen's pool, shared by the process; 0: one a core
  bool sessions_only = false;                // for tests: run everything as kCallable
  std::string name;                          // "model:version", for messages
  bool batching = true;                      // false: TesseraBatch passes its tensors through
  bool request_batching = false;             // batch whole requests of signatures without batched regions
  BatchLane* lane = nullptr;                 // null: the process's lane for the CPU
};

// Of a model of another platform.
struct ForeignOptions {
  std::string name;  // as in LoadOptions, like `request_batching` and `lane`
  size_t workers = 4;
  size_t max_waiting = 1024;  // requests that may wait for a worker
  bool request_batching = false;
  BatchLane* lane = nullptr;
};

// Immutable after Load; thread-safe. Destruction may take long (it frees the
// weights).
class LoadedGraph : public std::enable_shared_from_this<LoadedGraph> {
 public:
  // NOT_FOUND, DATA_LOSS and what TensorFlow says; texts name the file, the
  // blob or the signature.
  static absl::StatusOr<std::shared_ptr<LoadedGraph>> Load(const std::string& path, const LoadOptions& options);
  // INVALID_ARGUMENT: a signature that cannot be served; names it.
  static absl::StatusOr<std::shared_ptr<LoadedGraph>> Foreign(const tensorflow::MetaGraphDef& signatures,
                                                              std::shared_ptr<const ForeignModel> model,
                                                              const ForeignOptions& options);
  ~LoadedGraph();

  // Null when there is no such signature.
  const Runnable* Find(absl::string_view signature) const;
  // What runs all of `runnables`, which are this graph's and classify or regress, at once: one of them when they are
  // the same but for their names, else a Runnable whose inputs and outputs have their tensors as aliases. Null when
  // they have to be run one after the other (see MergedRunnables).
  const Runnable* FindMerged(absl::Span<const Runnable* const> runnables) const;
  const std::map<std::string, Runnable, std::less<>>& runnables() const { return runnables_; }
  // A serialized tensorflow.serving.SignatureDefMap.
  const std::string& signature_defs() const { return signature_defs_; }
  // Highest table position that a TesseraLookup names, plus one.
  int64_t lookup_tables() const { return lookup_tables_; }
  // The regions that are batched; their policies may be changed while the graph serves.
  BatchGroups& batch_groups() const { return *batch_groups_; }
  // Ends when the memory is free again; what is shared is freed on a thread of the background.
  std::shared_ptr<const LifeWatch> watch() const { return life_.watch(); }

 private:
  struct PlacedGraph;

  LoadedGraph() = default;
  static std::shared_ptr<LoadedGraph> MakeShared();
  absl::Status LoadSession(const std::string& path, const tensorflow::MetaGraphDef& meta_graph);
  void BuildRunnables(tensorflow::MetaGraphDef* meta_graph, const LoadOptions& options);
  void BuildMerged(const ExecutorEnvironment& environment, std::shared_ptr<PlacedGraph> graph, BatchGroups* batching,
                   size_t graph_bytes);
  void BuildRunnable(const tensorflow::SignatureDef& def, const ExecutorEnvironment& environment,
                     tensorflow::GraphExecutionState* state, BatchGroups* batching, Runnable* runnable);

  // Batches what `runnable` runs, if nothing speaks against it.
  void BatchRequests(const tensorflow::SignatureDef& def, Runnable* runnable);
  void LogRefused() const;
  // A serialized tensorflow.serving.SignatureDefMap.
  static std::string SerializeSignatures(const tensorflow::MetaGraphDef& meta_graph);

  Life life_;  // first: see there
  tensorflow::SessionOptions options_;
  std::string signature_defs_;
  int64_t lookup_tables_ = 0;
  std::unique_ptr<BatchGroups> batch_groups_;
  // Destroyed from the last to the first: runnables use the session's devices,
  // whose variables are blobs' tensors.
  std::shared_ptr<const ForeignModel> foreign_model_;
  std::unique_ptr<WorkerPool> foreign_pool_;
  std::unique_ptr<BlobSet> blobs_;
  std::unique_ptr<tensorflow::Session> session_;
  std::map<std::string, Runnable, std::less<>> runnables_;
  std::unique_ptr<MergedRunnables> merged_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_GRAPH_H_
