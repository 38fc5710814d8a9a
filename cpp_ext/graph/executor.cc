#include "cpp_ext/graph/executor.h"

#include <atomic>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/status.h"
#include "cpp_ext/graph/trampoline.h"
#include "tensorflow/core/common_runtime/build_graph_options.h"
#include "tensorflow/core/common_runtime/executor_factory.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/common_runtime/graph_optimizer.h"
#include "tensorflow/core/common_runtime/memory_types.h"
#include "tensorflow/core/common_runtime/optimization_registry.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

constexpr char kSingleThreaded[] = "SINGLE_THREADED_EXECUTOR";

// Ids of steps that have no context; negative, as those of eager execution, so
// that they meet no session's.
int64_t NextPlainStepId() {
  static std::atomic<int64_t> next{-1};
  return next.fetch_sub(1, std::memory_order_relaxed);
}

// Ops that use parts of the step that only a session provides.
bool NeedsSession(const std::string& op) {
  static const auto* const ops = new std::unordered_set<std::string>(
      {"GetSessionHandle", "GetSessionHandleV2", "GetSessionTensor", "DeleteSessionTensor"});
  return ops->count(op) != 0 || absl::StartsWith(op, "Collective");
}

bool SendsOrReceives(const std::string& op) {
  return op == "_Send" || op == "_Recv" || op == "_HostSend" || op == "_HostRecv" || op == "Send" || op == "Recv";
}

bool CallsFunctions(const tf::AttrValue& value) {
  return value.has_func() || (value.has_list() && value.list().func_size() > 0);
}

struct GraphFacts {
  bool has_lookup = false;
  bool has_functions = false;
  bool needs_rendezvous = false;
  std::string session_op;  // an op that needs a session, empty if there is none
};

void NoteOp(const std::string& op, GraphFacts* facts) {
  facts->has_lookup |= op == "TesseraLookup";
  facts->needs_rendezvous |= SendsOrReceives(op);
  if (NeedsSession(op)) facts->session_op = op;
}

GraphFacts Examine(const tf::Graph& graph, const tf::FunctionLibraryDefinition& functions) {
  GraphFacts facts;
  for (const tf::Node* node : graph.op_nodes()) {
    NoteOp(node->type_string(), &facts);
    facts.has_functions |= functions.Contains(node->type_string());
    for (const auto& attr : node->attrs()) facts.has_functions |= CallsFunctions(attr.second);
  }
  if (!facts.has_functions) return facts;
  // Which functions are reached is known only when they run; all of the library
  // is assumed.
  facts.needs_rendezvous = true;
  for (const std::string& name : functions.ListFunctionNames()) {
    for (const tf::NodeDef& node : functions.Find(name)->node_def()) NoteOp(node.op(), &facts);
  }
  return facts;
}

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

GraphExecutor::~GraphExecutor() = default;

absl::StatusOr<std::unique_ptr<GraphExecutor>> GraphExecutor::Build(const ExecutorEnvironment& environment,
                                                                    const Signature& signature,
                                                                    tf::GraphExecutionState* state) {
  std::unique_ptr<GraphExecutor> self(new GraphExecutor);
  self->options_ = environment.options;
  self->devices_ = environment.devices;
  self->cpu_ = environment.cpu;
  absl::StatusOr<std::unique_ptr<tf::ClientGraph>> client = Prune(signature, state);
  if (!client.ok()) return client.status();
  TF_RETURN_IF_ERROR(CheckDevices((*client)->graph, *environment.cpu));
  self->input_types_ = (*client)->feed_types;
  self->fetch_types_ = (*client)->fetch_types;
  self->function_definitions_ = std::move((*client)->flib_def);
  auto graph = std::make_unique<tf::Graph>(self->function_definitions_.get());
  tf::CopyGraph((*client)->graph, graph.get());

  std::unordered_map<std::string, std::unique_ptr<tf::Graph>> partitions;
  partitions[environment.cpu->name()] = std::move(graph);
  tf::GraphOptimizationPassOptions passes;
  passes.session_options = environment.options;
  passes.flib_def = self->function_definitions_.get();
  passes.partition_graphs = &partitions;
  TF_RETURN_IF_ERROR(
      tf::OptimizationPassRegistry::Global()->RunGrouping(tf::OptimizationPassRegistry::POST_PARTITIONING, passes));
  graph = std::move(partitions.begin()->second);

  const tf::OptimizerOptions& optimizer_options = environment.options->config.graph_options().optimizer_options();
  self->functions_ = std::make_unique<tf::ProcessFunctionLibraryRuntime>(
      environment.devices, environment.options->env, &environment.options->config, graph->versions().producer(),
      self->function_definitions_.get(), optimizer_options,
      /*thread_pool=*/nullptr, /*parent=*/nullptr,
      /*session_metadata=*/nullptr,
      tf::Rendezvous::Factory{
          [](const int64_t, const tf::DeviceMgr* devices, tsl::core::RefCountPtr<tf::Rendezvous>* rendezvous) {
            *rendezvous = tsl::core::RefCountPtr<tf::Rendezvous>(new tf::IntraProcessRendezvous(devices));
            return absl::OkStatus();
          }});
  tf::FunctionLibraryRuntime* library = self->functions_->GetFLR(environment.cpu->name());
  if (library == nullptr) return absl::InternalError("no function runtime for the CPU");
  tf::GraphOptimizer(optimizer_options)
      .Optimize(library, environment.options->env, environment.cpu, &graph, tf::GraphOptimizer::Options());
  TF_RETURN_IF_ERROR(
      tf::EnsureMemoryTypes(tf::DeviceType(environment.cpu->device_type()), environment.cpu->name(), graph.get()));
  const GraphFacts facts = Examine(*graph, *self->function_definitions_);
  if (!facts.session_op.empty()) {
    return absl::UnimplementedError(absl::StrCat("op ", facts.session_op, " needs a session"));
  }
  self->has_lookup_ = facts.has_lookup;
  self->has_functions_ = facts.has_functions;
  self->needs_rendezvous_ = facts.needs_rendezvous;
  TF_RETURN_IF_ERROR(self->CreateExecutor(environment, *graph, library));
  return self;
}

absl::Status GraphExecutor::CreateExecutor(const ExecutorEnvironment& environment, const tf::Graph& graph,
                                           tf::FunctionLibraryRuntime* library) {
  bool has_async_kernels = false;
  tf::LocalExecutorParams params;
  params.device = environment.cpu;
  params.function_library = library;
  params.create_kernel = [library, &has_async_kernels](const std::shared_ptr<const tf::NodeProperties>& properties,
                                                       tf::OpKernel** kernel) {
    absl::Status status = library->CreateKernel(properties, kernel);
    if (status.ok() && (*kernel)->AsAsync() != nullptr) has_async_kernels = true;
    return status;
  };
  params.delete_kernel = [](tf::OpKernel* kernel) { delete kernel; };
  TF_RETURN_IF_ERROR(tf::NewExecutor("", params, graph, &executor_));
  has_async_kernels_ = has_async_kernels || has_functions_;
  if (has_async_kernels_) return absl::OkStatus();
  // A fifth to a third cheaper for small graphs, but without control flow,
  // reference variables or asynchrony.
  std::unique_ptr<tf::Executor> single_threaded;
  if (tf::NewExecutor(kSingleThreaded, params, graph, &single_threaded).ok()) {
    executor_ = std::move(single_threaded);
    executor_type_ = kSingleThreaded;
  }
  return absl::OkStatus();
}

void GraphExecutor::RunAsync(Step* step) const {
  tf::Executor::Args args;
  args.step_id = has_lookup_ ? step->slot().BeginStep() : NextPlainStepId();
  args.call_frame = step;
  args.cancellation_manager = step->cancellation();
  args.session_config = &options_->config;
  args.step_container = step->MakeContainer(args.step_id, cpu_->resource_manager());
  if (needs_rendezvous_) args.rendezvous = step->MakeRendezvous(devices_);
  // While loops that are functions wait for their bodies when kernels run
  // inline, so a lookup inside would block this thread, which may be the one
  // that has to receive the rows.
  args.run_all_kernels_inline = !(has_lookup_ && has_functions_);
  if (has_lookup_) {
    args.runner = [](const std::function<void()>& closure) { RunFlat(closure); };
  } else {
    args.runner = [](const std::function<void()>& closure) { closure(); };
  }
  executor_->RunAsync(
      args, [step](const absl::Status& status) { step->Finish(status.ok() ? absl::OkStatus() : CleanStatus(status)); });
}

}  // namespace tessera
