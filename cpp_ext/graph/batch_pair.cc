#include "cpp_ext/graph/batch_pair.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

namespace tf = tensorflow;
using Nodes = std::unordered_set<tf::Node*>;

constexpr char kBatch[] = "TesseraBatch";
constexpr char kUnbatch[] = "TesseraUnbatch";

// Nodes that data flows to from `batch`, without what comes after `unbatch`.
Nodes Downstream(tf::Node* batch, const tf::Node* unbatch) {
  Nodes seen;
  std::vector<tf::Node*> next{batch};
  while (!next.empty()) {
    tf::Node* node = next.back();
    next.pop_back();
    for (const tf::Edge* edge : node->out_edges()) {
      if (edge->IsControlEdge() || edge->dst() == unbatch) continue;
      if (seen.insert(edge->dst()).second) next.push_back(edge->dst());
    }
  }
  return seen;
}

// Ops that are marked as stateful so that nobody removes them, or because of what they read, but that may run again.
bool IsHarmless(const std::string& op) {
  return op == "ReadVariableOp" || op == "ResourceGather" || op == "TesseraLookup" || op == "TesseraBlob" ||
         op == "CheckNumerics" || op == "CheckNumericsV2";
}

absl::Status CheckInside(const tf::Node& node) {
  const std::string& op = node.type_string();
  if (op == kBatch || op == kUnbatch || op == "TesseraBatchedCall") {
    return absl::FailedPreconditionError(absl::StrCat(node.name(), " begins or ends another region inside of it"));
  }
  if (node.IsControlFlow() || node.IsRetval()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the value that ", node.name(), " (", op, ") uses leaves the region without TesseraUnbatch"));
  }
  if (node.op_def().is_stateful() && !IsHarmless(op)) {
    return absl::FailedPreconditionError(absl::StrCat(node.name(), " (", op, ") has effects"));
  }
  return absl::OkStatus();
}

// One op takes the place of all: what runs after one op of the region and before another could not run any more.
absl::Status CheckOrder(const BatchPair& pair) {
  const auto inside = [&pair](tf::Node* node) { return node == pair.batch || pair.inside.count(node) != 0; };
  Nodes seen;
  std::vector<tf::Node*> next;
  const auto follow = [&](const tf::Edge& edge) {
    if (seen.insert(edge.dst()).second) next.push_back(edge.dst());
  };
  const auto begin = [&](tf::Node* node) {
    for (const tf::Edge* edge : node->out_edges()) {
      if (edge->IsControlEdge() && !inside(edge->dst()) && edge->dst() != pair.unbatch) follow(*edge);
    }
  };
  begin(pair.batch);
  for (tf::Node* node : pair.inside) begin(node);
  while (!next.empty()) {
    tf::Node* node = next.back();
    next.pop_back();
    if (node->IsNextIteration()) continue;
    for (const tf::Edge* edge : node->out_edges()) {
      // Data from outside is copied into the region; only its order would be lost, and nothing in it has effects.
      const bool back = inside(edge->dst()) || edge->dst() == pair.unbatch;
      if (back && edge->IsControlEdge()) {
        return absl::FailedPreconditionError(
            absl::StrCat(node->name(), " (", node->type_string(),
                         ") has to run after one op of the region and before another, ", edge->dst()->name()));
      }
      if (!back) follow(*edge);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BatchPair> FindBatchPair(tf::Node* unbatch) {
  const tf::Edge* token = nullptr;
  TF_RETURN_IF_ERROR(unbatch->input_edge(unbatch->num_inputs() - 1, &token));
  tf::Node* batch = token->src();
  if (batch->type_string() != kBatch) {
    return absl::FailedPreconditionError(absl::StrCat("the token of ", unbatch->name(), " comes from ", batch->name(),
                                                      " (", batch->type_string(), "), expected a TesseraBatch"));
  }
  for (const tf::Edge* edge : batch->out_edges()) {
    if (edge->src_output() == token->src_output() && edge->dst() != unbatch) {
      return absl::FailedPreconditionError(absl::StrCat("the token of ", batch->name(), " has two users"));
    }
  }
  return BatchPair{batch, unbatch, {}};
}

absl::Status FindInside(BatchPair* pair) {
  const Nodes downstream = Downstream(pair->batch, pair->unbatch);
  for (const tf::Node* node : downstream) TF_RETURN_IF_ERROR(CheckInside(*node));
  std::vector<tf::Node*> next{pair->unbatch};
  while (!next.empty()) {
    tf::Node* node = next.back();
    next.pop_back();
    for (const tf::Edge* edge : node->in_edges()) {
      if (edge->IsControlEdge() || downstream.count(edge->src()) == 0) continue;
      if (pair->inside.insert(edge->src()).second) next.push_back(edge->src());
    }
  }
  for (const tf::Node* node : downstream) {
    if (pair->inside.count(const_cast<tf::Node*>(node)) == 0) {
      return absl::FailedPreconditionError(absl::StrCat("the value that ", node->name(), " (", node->type_string(),
                                                        ") uses leaves the region without TesseraUnbatch"));
    }
  }
  return CheckOrder(*pair);
}

}  // namespace tessera
