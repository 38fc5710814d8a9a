#include "cpp_ext/graph/compiled_graph.h"

#include <atomic>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/status.h"
#include "cpp_ext/graph/trampoline.h"
#include "tensorflow/core/common_runtime/executor_factory.h"

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

void NoteOp(const std::string& op, GraphFacts* facts) {
  facts->has_lookup |= op == "TesseraLookup";
  facts->has_batches |= op == "TesseraBatchedCall";
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

}  // namespace

CompiledGraph::~CompiledGraph() = default;

absl::StatusOr<std::unique_ptr<CompiledGraph>> CompiledGraph::Build(const ExecutorEnvironment& environment,
                                                                    const tf::Graph& graph,
                                                                    const tf::FunctionLibraryDefinition& functions,
                                                                    tf::FunctionLibraryRuntime* library,
                                                                    const OnKernel& on_kernel) {
  std::unique_ptr<CompiledGraph> self(new CompiledGraph(environment));
  self->facts_ = Examine(graph, functions);
  if (!self->facts_.session_op.empty()) {
    return absl::UnimplementedError(absl::StrCat("op ", self->facts_.session_op, " needs a session"));
  }
  TF_RETURN_IF_ERROR(self->CreateExecutor(graph, library, on_kernel));
  return self;
}

absl::Status CompiledGraph::CreateExecutor(const tf::Graph& graph, tf::FunctionLibraryRuntime* library,
                                           const OnKernel& on_kernel) {
  bool has_async_kernels = false;
  tf::LocalExecutorParams params;
  params.device = environment_.cpu;
  params.function_library = library;
  params.create_kernel = [library, &has_async_kernels, &on_kernel](
                             const std::shared_ptr<const tf::NodeProperties>& properties, tf::OpKernel** kernel) {
    absl::Status status = library->CreateKernel(properties, kernel);
    if (!status.ok()) return status;
    if ((*kernel)->AsAsync() != nullptr) has_async_kernels = true;
    on_kernel(*kernel);
    return status;
  };
  params.delete_kernel = [](tf::OpKernel* kernel) { delete kernel; };
  TF_RETURN_IF_ERROR(tf::NewExecutor("", params, graph, &executor_));
  has_async_kernels_ = has_async_kernels || facts_.has_functions;
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

void CompiledGraph::RunAsync(Step* step) const {
  tf::Executor::Args args;
  args.step_id = needs_context() ? step->BeginContext() : NextPlainStepId();
  args.call_frame = step;
  args.cancellation_manager = step->cancellation();
  args.session_config = &environment_.options->config;
  args.step_container = step->MakeContainer(args.step_id, environment_.cpu->resource_manager());
  if (facts_.needs_rendezvous) args.rendezvous = step->MakeRendezvous(environment_.devices);
  // While loops that are functions wait for their bodies when kernels run
  // inline, so a lookup inside would block this thread, which may be the one
  // that has to receive the rows.
  args.run_all_kernels_inline = !(needs_context() && facts_.has_functions);
  if (needs_context()) {
    args.runner = [](const std::function<void()>& closure) { RunFlat(closure); };
  } else {
    args.runner = [](const std::function<void()>& closure) { closure(); };
  }
  executor_->RunAsync(
      args, [step](const absl::Status& status) { step->Finish(status.ok() ? absl::OkStatus() : CleanStatus(status)); });
}

}  // namespace tessera
