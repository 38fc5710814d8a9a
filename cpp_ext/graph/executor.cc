#include "cpp_ext/graph/executor.h"

#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_extract.h"
#include "cpp_ext/graph/batch_functions.h"
#include "cpp_ext/graph/batch_op.h"
#include "tensorflow/core/common_runtime/build_graph_options.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/common_runtime/graph_optimizer.h"
#include "tensorflow/core/common_runtime/memory_types.h"
#include "tensorflow/core/common_runtime/optimization_registry.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

absl::Status CheckDevices(const tf::Graph& graph, const tf::Device& cpu) {
  for (const tf::Node* node : graph.op_nodes()) {
    if (node->assigned_device_name() != cpu.name()) {
      return absl::UnimplementedError(
          absl::StrCat("node ", node->name(), " is placed on ", node->assigned_device_name(), ", not on ", cpu.name()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<tf::ClientGraph>> Prune(const Signature& signature, tf::GraphExecutionState* state) {
  tf::BuildGraphOptions options;
  options.use_function_convention = true;
  for (const SignatureInput& input : signature.inputs()) options.callable_options.add_feed(input.tensor);
  for (const std::string& fetch : signature.fetches()) options.callable_options.add_fetch(fetch);
  std::unique_ptr<tf::ClientGraph> client;
  TF_RETURN_IF_ERROR(state->BuildGraph(options, &client));
  return client;
}

}  // namespace

GraphExecutor::~GraphExecutor() {
  for (const std::shared_ptr<BatchRegion>& region : regions_) region->Close();
}

absl::StatusOr<std::unique_ptr<tf::Graph>> GraphExecutor::Optimize(const ExecutorEnvironment& environment,
                                                                   const Signature& signature,
                                                                   tf::GraphExecutionState* state) {
  absl::StatusOr<std::unique_ptr<tf::ClientGraph>> client = Prune(signature, state);
  if (!client.ok()) return client.status();
  TF_RETURN_IF_ERROR(CheckDevices((*client)->graph, *environment.cpu));
  input_types_ = (*client)->feed_types;
  fetch_types_ = (*client)->fetch_types;
  function_definitions_ = std::move((*client)->flib_def);
  auto graph = std::make_unique<tf::Graph>(function_definitions_.get());
  tf::CopyGraph((*client)->graph, graph.get());

  std::unordered_map<std::string, std::unique_ptr<tf::Graph>> partitions;
  partitions[environment.cpu->name()] = std::move(graph);
  tf::GraphOptimizationPassOptions passes;
  passes.session_options = environment.options;
  passes.flib_def = function_definitions_.get();
  passes.partition_graphs = &partitions;
  TF_RETURN_IF_ERROR(
      tf::OptimizationPassRegistry::Global()->RunGrouping(tf::OptimizationPassRegistry::POST_PARTITIONING, passes));
  graph = std::move(partitions.begin()->second);

  const tf::OptimizerOptions& optimizer_options = environment.options->config.graph_options().optimizer_options();
  functions_ = std::make_unique<tf::ProcessFunctionLibraryRuntime>(
      environment.devices, environment.options->env, &environment.options->config, graph->versions().producer(),
      function_definitions_.get(), optimizer_options,
      /*thread_pool=*/nullptr, /*parent=*/nullptr,
      /*session_metadata=*/nullptr,
      tf::Rendezvous::Factory{
          [](const int64_t, const tf::DeviceMgr* devices, tsl::core::RefCountPtr<tf::Rendezvous>* rendezvous) {
            *rendezvous = tsl::core::RefCountPtr<tf::Rendezvous>(new tf::IntraProcessRendezvous(devices));
            return absl::OkStatus();
          }});
  library_ = functions_->GetFLR(environment.cpu->name());
  if (library_ == nullptr) return absl::InternalError("no function runtime for the CPU");
  tf::GraphOptimizer(optimizer_options)
      .Optimize(library_, environment.options->env, environment.cpu, &graph, tf::GraphOptimizer::Options());
  return graph;
}

absl::Status GraphExecutor::BuildRegions(const ExecutorEnvironment& environment, tf::Graph* graph,
                                         BatchGroups* batching) {
  std::vector<ExtractedRegion> extracted;
  std::vector<RefusedRegion> refused;
  RefusePairsInFunctions(*graph, *function_definitions_, &refused);
  TF_RETURN_IF_ERROR(ExtractBatchRegions(graph, &extracted, &refused));
  for (const RefusedRegion& region : refused) batching->Refuse(region.name, region.reason);
  for (ExtractedRegion& region : extracted) {
    TF_RETURN_IF_ERROR(tf::EnsureMemoryTypes(tf::DeviceType(environment.cpu->device_type()), environment.cpu->name(),
                                             region.graph.get()));
    auto compiled =
        CompiledGraph::Build(environment, *region.graph, *function_definitions_, library_, [](tf::OpKernel*) {});
    if (!compiled.ok()) return compiled.status();
    region.graph.reset();  // the kernels have what they need of its constants
    regions_.push_back(std::make_shared<BatchRegion>(batching->Find(region.name, region.in_loop), std::move(region),
                                                     *std::move(compiled)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GraphExecutor>> GraphExecutor::Build(const ExecutorEnvironment& environment,
                                                                    const Signature& signature,
                                                                    tf::GraphExecutionState* state,
                                                                    BatchGroups* batching) {
  std::unique_ptr<GraphExecutor> self(new GraphExecutor);
  absl::StatusOr<std::unique_ptr<tf::Graph>> graph = self->Optimize(environment, signature, state);
  if (!graph.ok()) return graph.status();
  if (batching != nullptr) TF_RETURN_IF_ERROR(self->BuildRegions(environment, graph->get(), batching));
  TF_RETURN_IF_ERROR(
      tf::EnsureMemoryTypes(tf::DeviceType(environment.cpu->device_type()), environment.cpu->name(), graph->get()));
  const auto bind = [&self](tf::OpKernel* kernel) { BindRegion(self->regions_, kernel); };
  auto compiled = CompiledGraph::Build(environment, **graph, *self->function_definitions_, self->library_, bind);
  if (!compiled.ok()) return compiled.status();
  self->graph_ = *std::move(compiled);
  return self;
}

}  // namespace tessera
