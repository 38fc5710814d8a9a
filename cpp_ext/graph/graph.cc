#include "cpp_ext/graph/graph.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/paced_files.h"
#include "cpp_ext/graph/status.h"
#include "cpp_ext/graph/wire.h"
#include "cpp_ext/graph/worker_pool.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/reader.h"
#include "tensorflow/core/common_runtime/device_set.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tsl/profiler/lib/traceme.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Calls `visit` with every node of the graph and of its functions, until one
// fails.
absl::Status ForEachNode(tf::GraphDef* graph, const std::function<absl::Status(tf::NodeDef*)>& visit) {
  for (tf::NodeDef& node : *graph->mutable_node()) TF_RETURN_IF_ERROR(visit(&node));
  for (tf::FunctionDef& function : *graph->mutable_library()->mutable_function()) {
    for (tf::NodeDef& node : *function.mutable_node_def()) TF_RETURN_IF_ERROR(visit(&node));
  }
  return absl::OkStatus();
}

// Kernels of a session's init op and of our executors are not the same objects,
// so a table without a name of its own must be found by the node's name.
void NameTable(tf::NodeDef* node) {
  auto& attrs = *node->mutable_attr();
  const bool is_table = absl::StrContains(node->op(), "HashTable") && attrs.count("use_node_name_sharing") != 0;
  if (is_table && attrs["shared_name"].s().empty()) attrs["use_node_name_sharing"].set_b(true);
}

absl::Status CheckBlob(const tf::NodeDef& node, const BlobSet& blobs) {
  std::string digest, weight;
  tf::DataType dtype;
  tf::TensorShape shape;
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(node, "digest", &digest));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(node, "weight", &weight));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(node, "dtype", &dtype));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(node, "shape", &shape));
  if (!blobs.contains(digest)) {
    return absl::NotFoundError(absl::StrCat("weight ", weight, ": blob ", digest, " is not in `blobs`"));
  }
  std::shared_ptr<BlobBytes> bytes;
  const size_t size_bytes = static_cast<size_t>(shape.num_elements()) * tf::DataTypeSize(dtype);
  const BlobError error = OpenBlob(digest, size_bytes, weight, &bytes);
  return absl::Status(static_cast<absl::StatusCode>(error.code), error.message);
}

absl::Status NoteLookup(const tf::NodeDef& node, int64_t* lookup_tables) {
  std::vector<int64_t> tables;
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(node, "tables", &tables));
  for (const int64_t table : tables) *lookup_tables = std::max(*lookup_tables, table + 1);
  return absl::OkStatus();
}

tf::SessionOptions MakeOptions(int intra_op_threads) {
  tf::SessionOptions options;
  options.config.set_intra_op_parallelism_threads(intra_op_threads);
  options.config.set_inter_op_parallelism_threads(-1);  // the session, too, runs on its caller's thread
  options.config.set_allow_soft_placement(true);
  return options;
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

// The whole graph, placed: what executors are made of.
struct LoadedGraph::PlacedGraph {
  tf::DeviceSet device_set;
  std::unique_ptr<tf::GraphExecutionState> state;  // null: only sessions can be used
};

absl::Status Runnable::CheckTypes(const Step& step) const {
  const std::vector<tf::Tensor>& args = step.args();
  for (size_t i = 0; i < input_types_.size(); ++i) {
    if (args[i].dtype() == input_types_[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat("Type mismatch: actual ", tf::DataTypeString(args[i].dtype()),
                                                   " vs. expect ", tf::DataTypeString(input_types_[i]), " for input ",
                                                   signature_.inputs()[i].alias));
  }
  return absl::OkStatus();
}

void Runnable::RunAsync(Step* step) const {
  // The single-threaded executor says nothing of its operations; costs a load when no profile is being recorded.
  const tsl::profiler::TraceMe activity([this] { return absl::StrCat("Run ", signature_.name()); });
  if (runner_ == nullptr) return step->Finish(reason_);
  absl::Status status = CheckTypes(*step);
  if (!status.ok()) return step->Finish(std::move(status));
  if (request_batch_ != nullptr && request_batch_->active()) return request_batch_->Submit(step);
  runner_->RunAsync(step);
}

absl::StatusOr<std::shared_ptr<LoadedGraph>> LoadedGraph::Load(const std::string& path, const LoadOptions& options) {
  if (!Exists(path + "/saved_model.pb") && !Exists(path + "/saved_model.pbtxt")) {
    return absl::NotFoundError(absl::StrCat("path: no saved_model.pb in ", path));
  }
  std::shared_ptr<LoadedGraph> self = MakeShared();
  self->options_ = MakeOptions(options.intra_op_threads);
  self->blobs_ = std::make_unique<BlobSet>(options.blobs);
  tf::MetaGraphDef meta_graph;
  const std::unordered_set<std::string> tags(options.tags.begin(), options.tags.end());
  absl::Status status = tf::ReadMetaGraphDefFromSavedModel(path, tags, &meta_graph);
  if (!status.ok()) return CleanStatus(status);
  status = ForEachNode(meta_graph.mutable_graph_def(), [&](tf::NodeDef* node) {
    if (node->op() == "TesseraBlob") return CheckBlob(*node, *self->blobs_);
    if (node->op() == "TesseraLookup") return NoteLookup(*node, &self->lookup_tables_);
    NameTable(node);
    return absl::OkStatus();
  });
  if (status.ok()) status = self->LoadSession(path, meta_graph);
  if (!status.ok()) return CleanStatus(status);
  self->signature_defs_ = SerializeSignatures(meta_graph);
  self->batch_groups_ = std::make_unique<BatchGroups>(options.lane == nullptr ? &CpuLane() : options.lane,
                                                      options.name.empty() ? path : options.name);
  self->BuildRunnables(&meta_graph, options);
  return self;
}

std::shared_ptr<LoadedGraph> LoadedGraph::MakeShared() {
  // Whoever drops the last reference may hold Python's lock, or answer requests.
  return std::shared_ptr<LoadedGraph>(
      new LoadedGraph, [](LoadedGraph* graph) { WorkerPool::Background().Submit([graph] { delete graph; }); });
}

LoadedGraph::~LoadedGraph() {
  merged_ = nullptr;
  runnables_.clear();
  if (session_ != nullptr) session_->Close().IgnoreError();
}

absl::Status LoadedGraph::LoadSession(const std::string& path, const tf::MetaGraphDef& meta_graph) {
  TF_RETURN_IF_ERROR(tf::LoadMetagraphIntoSession(options_, meta_graph, &session_));
  return WithoutPacedPaths(tf::RestoreSession(tf::RunOptions(), meta_graph, PacedPath(path), &session_));
}

void LoadedGraph::BuildRunnables(tf::MetaGraphDef* meta_graph, const LoadOptions& options) {
  const size_t graph_bytes = meta_graph->graph_def().ByteSizeLong();
  const tf::DeviceMgr* devices = nullptr;
  auto graph = std::make_shared<PlacedGraph>();
  absl::Status status = session_->LocalDeviceManager(&devices);
  ExecutorEnvironment environment{&options_, devices, nullptr};
  if (status.ok() && options.sessions_only) status = absl::UnimplementedError("sessions were asked for");
  if (status.ok()) {
    environment.cpu = devices->HostCPU();
    for (tf::Device* device : devices->ListDevices()) graph->device_set.AddDevice(device);
    graph->device_set.set_client_device(environment.cpu);
    tf::GraphExecutionStateOptions state_options;
    state_options.device_set = &graph->device_set;
    state_options.session_options = &options_;
    status = tf::GraphExecutionState::MakeForBaseGraph(std::move(*meta_graph->mutable_graph_def()), state_options,
                                                       &graph->state);
  }
  BatchGroups* const batching = options.batching ? batch_groups_.get() : nullptr;
  for (const auto& [name, def] : meta_graph->signature_def()) {
    Runnable& runnable = runnables_[name];
    runnable.reason_ = status;
    absl::StatusOr<Signature> signature = Signature::Make(name, def);
    if (!signature.ok()) {
      runnable.reason_ = signature.status();
    } else {
      runnable.signature_ = *std::move(signature);
      BuildRunnable(def, environment, graph->state.get(), batching, &runnable);
    }
    const bool internal = absl::StartsWith(name, "__saved_model");  // TensorFlow's own; not for clients
    if (runnable.mode_ == RunMode::kCallable) {
      LOG(WARNING) << "signature " << name << " runs on TensorFlow's session: " << runnable.reason_.message();
    } else if (runnable.mode_ == RunMode::kRefused && !internal) {
      LOG(WARNING) << "signature " << name << " cannot be served: " << runnable.reason_.message();
    }
    if (options.request_batching && !internal) BatchRequests(def, &runnable);
  }
  BuildMerged(environment, std::move(graph), batching, graph_bytes);
  LogRefused();
}

void LoadedGraph::BuildMerged(const ExecutorEnvironment& environment, std::shared_ptr<PlacedGraph> graph,
                              BatchGroups* batching, size_t graph_bytes) {
  std::vector<const Signature*> signatures;
  for (const auto& [name, runnable] : runnables_) {
    if (runnable.mode_ != RunMode::kRefused) signatures.push_back(&runnable.signature_);
  }
  Heads heads = FindHeads(signatures);
  for (const auto& [name, head] : heads.of_signature) runnables_.find(name)->second.head_ = head;
  const auto build = [this, environment, graph = std::move(graph),
                      batching](const tf::SignatureDef& def) -> std::shared_ptr<const Runnable> {
    absl::StatusOr<Signature> signature = Signature::Make("MultiInference", def);
    auto merged = std::make_shared<Runnable>();
    if (signature.ok()) {
      merged->signature_ = *std::move(signature);
      BuildRunnable(def, environment, graph->state.get(), batching, merged.get());
    }
    if (merged->mode_ != RunMode::kRefused) return merged;
    LOG(WARNING) << "MultiInference runs some signatures one after the other: "
                 << (signature.ok() ? merged->reason_ : signature.status()).message();
    return nullptr;
  };
  // Building a region changes the groups of batches, which must not happen once the graph serves.
  bool build_later = true;
  for (const auto& [name, entry] : batch_groups_->entries()) build_later &= entry->refused().ok();
  for (const auto& [name, one] : runnables_)
    build_later &= one.executor_ == nullptr || one.executor_->regions().empty();
  merged_ = std::make_unique<MergedRunnables>(std::move(heads.heads), graph_bytes, build, build_later);
}

void LoadedGraph::BuildRunnable(const tf::SignatureDef& def, const ExecutorEnvironment& environment,
                                tf::GraphExecutionState* state, BatchGroups* batching, Runnable* runnable) {
  if (state != nullptr) {
    auto executor = GraphExecutor::Build(environment, runnable->signature_, state, batching);
    if (executor.ok()) {
      runnable->executor_ = *std::move(executor);
      runnable->runner_ = runnable->executor_;
      runnable->input_types_ = runnable->executor_->input_types();
      runnable->mode_ = runnable->executor_->needs_context() ? RunMode::kAsync : RunMode::kInline;
      runnable->reason_ = absl::OkStatus();
      return;
    }
    runnable->reason_ = CleanStatus(executor.status());
  }
  if (lookup_tables_ > 0) {
    // A session gives its kernels no step of ours.
    runnable->reason_ = absl::FailedPreconditionError(
        absl::StrCat("signature ", runnable->signature_.name(), ": a package with sharded tables needs what Tessera's ",
                     "executor cannot run: ", runnable->reason_.message()));
    return;
  }
  auto session_runner = SessionRunner::Build(runnable->signature_, session_.get());
  if (!session_runner.ok()) {
    runnable->reason_ = session_runner.status();
    return;
  }
  runnable->runner_ = *std::move(session_runner);
  runnable->mode_ = RunMode::kCallable;
}

void LoadedGraph::BatchRequests(const tf::SignatureDef& def, Runnable* runnable) {
  if (runnable->runner_ == nullptr) return;
  if (runnable->executor_ != nullptr && !runnable->executor_->regions().empty()) return;  // its author knows better
  tf::DataTypeVector types;
  for (const SignatureInput& input : runnable->signature_.inputs())
    types.push_back(def.inputs().at(input.alias).dtype());
  if (runnable->executor_ != nullptr) types = runnable->executor_->input_types();
  runnable->request_batch_ =
      RequestBatch::Make(runnable->signature_, def, types, runnable->runner_, batch_groups_.get());
  if (runnable->request_batch_ == nullptr) return;
  runnable->input_types_ = std::move(types);
  runnable->mode_ = RunMode::kAsync;
}

void LoadedGraph::LogRefused() const {
  for (const auto& [name, entry] : batch_groups_->entries()) {
    if (!entry->refused().ok()) LOG(WARNING) << "region " << name << " is not batched: " << entry->refused().message();
  }
}

std::string LoadedGraph::SerializeSignatures(const tf::MetaGraphDef& meta_graph) {
  // SignatureDefMap has one field: map<string, SignatureDef> signature_def = 1.
  std::string out;
  for (const auto& [name, def] :
       std::map<std::string, tf::SignatureDef>(meta_graph.signature_def().begin(), meta_graph.signature_def().end())) {
    const std::string value = def.SerializeAsString();
    const size_t entry_bytes = DelimitedSize(1, name.size()) + DelimitedSize(2, value.size());
    const size_t at = out.size();
    out.resize(at + DelimitedSize(1, entry_bytes));
    uint8_t* to = WriteDelimitedHeader(1, entry_bytes, reinterpret_cast<uint8_t*>(&out[at]));
    WriteDelimited(2, value, WriteDelimited(1, name, to));
  }
  return out;
}

const Runnable* LoadedGraph::Find(absl::string_view signature) const {
  const auto found = runnables_.find(signature);
  return found == runnables_.end() ? nullptr : &found->second;
}

const Runnable* LoadedGraph::FindMerged(absl::Span<const Runnable* const> runnables) const {
  HeadSet heads = 0;
  for (const Runnable* runnable : runnables) {
    if (runnable->head_ == 0) return runnables.size() == 1 ? runnable : nullptr;
    heads |= runnable->head_;
  }
  if (__builtin_popcount(heads) == 1) return runnables.front();
  return merged_->Find(heads, shared_from_this());
}

}  // namespace tessera
