#include "cpp_ext/graph/batch_invariant.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

constexpr int kMaxDepth = 200;  // of ops between a weight and its use; bounds the recursion

absl::Status Differs(const tf::Node& node) {
  return absl::FailedPreconditionError(
      absl::StrCat("the value of ", node.name(), " (", node.type_string(),
                   ") comes from outside and differs from request to request; make it an input of the batch"));
}

bool IsConstantEnter(const tf::Node& node) {
  bool constant = false;
  return node.IsEnter() && tf::TryGetNodeAttr(node.attrs(), "is_constant", &constant) && constant;
}

const tf::Edge* DataInput(const tf::Node& node, int input) {
  const tf::Edge* edge = nullptr;
  return node.input_edge(input, &edge).ok() ? edge : nullptr;
}

// Follows Identities and the Switch of a loop variable back to the Merge at the head of the loop.
const tf::Node* LoopHead(const tf::Node* node) {
  for (int i = 0; i < kMaxDepth && (node->IsIdentity() || node->IsSwitch()); ++i) node = DataInput(*node, 0)->src();
  return node;
}

// A loop variable that every iteration hands on unchanged: the edge that brings its value into the loop, or null.
const tf::Edge* InvariantLoopVariable(const tf::Node& merge) {
  const tf::Edge* enter = nullptr;
  bool unchanged = false;
  for (const tf::Edge* edge : merge.in_edges()) {
    if (edge->IsControlEdge()) continue;
    if (edge->src()->IsEnter()) enter = DataInput(*edge->src(), 0);
    if (edge->src()->IsNextIteration()) unchanged = LoopHead(DataInput(*edge->src(), 0)->src()) == &merge;
  }
  return unchanged ? enter : nullptr;
}

bool MayCopy(const tf::Node& node) {
  const std::string& op = node.type_string();
  if (op == "VarHandleOp" || op == "ReadVariableOp" || op == "TesseraBlob" || node.IsVariable() || node.IsConstant()) {
    return true;
  }
  return !node.op_def().is_stateful() && !node.IsControlFlow() && !node.IsArg() && op != "TesseraBatch" &&
         op != "TesseraUnbatch" && op.rfind("Placeholder", 0) != 0;
}

}  // namespace

absl::StatusOr<InvariantCopier::Endpoint> InvariantCopier::Copy(const tf::Node* node, int output) {
  return Copy(node, output, 0);
}

absl::StatusOr<InvariantCopier::Endpoint> InvariantCopier::Copy(const tf::Node* node, int output, int depth) {
  if (depth > kMaxDepth) return Differs(*node);
  const tf::Edge* source = nullptr;
  if (node->IsMerge()) {
    source = output == 0 ? InvariantLoopVariable(*node) : nullptr;
    if (source == nullptr) return Differs(*node);
  } else if (node->IsSwitch() || node->IsIdentity() || IsConstantEnter(*node)) {
    source = DataInput(*node, 0);
  }
  if (source != nullptr) return Copy(source->src(), source->src_output(), depth + 1);
  absl::StatusOr<tf::Node*> copy = CopyNode(node, depth + 1);
  if (!copy.ok()) return copy.status();
  return Endpoint{*copy, output};
}

absl::StatusOr<tf::Node*> InvariantCopier::CopyNode(const tf::Node* node, int depth) {
  const auto found = copies_.find(node);
  if (found != copies_.end()) return found->second;
  if (!MayCopy(*node)) return Differs(*node);
  tf::Node* copy = to_->CopyNode(node);
  copies_[node] = copy;
  for (const tf::Edge* edge : node->in_edges()) {
    if (edge->IsControlEdge()) continue;  // nothing here has effects, so nothing has to come before it
    absl::StatusOr<Endpoint> input = Copy(edge->src(), edge->src_output(), depth);
    if (!input.ok()) return input.status();
    to_->AddEdge(input->node, input->output, copy, edge->dst_input());
  }
  return copy;
}

}  // namespace tessera
