#include "cpp_ext/graph/batch_extract.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_invariant.h"
#include "cpp_ext/graph/batch_pair.h"
#include "cpp_ext/graph/batch_pair_attributes.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/graph/algorithm.h"
#include "tensorflow/core/graph/control_flow.h"
#include "tensorflow/core/graph/node_builder.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Adds what `builder` describes, on the device of `like`.
absl::StatusOr<tf::Node*> Add(tf::NodeBuilder& builder, const tf::Node& like, tf::Graph* graph) {
  tf::Node* node = nullptr;
  TF_RETURN_IF_ERROR(builder.Finalize(graph, &node));
  node->set_assigned_device_name(like.assigned_device_name());
  return node;
}

// Builds the region's graph; the graph around it is not changed.
absl::Status CopyRegion(const BatchPair& pair, ExtractedRegion* region) {
  tf::Graph* graph = region->graph.get();
  std::vector<tf::Node*> args;
  std::unordered_map<const tf::Node*, tf::Node*> copies;
  for (size_t i = 0; i < region->input_types.size(); ++i) {
    tf::NodeBuilder builder(absl::StrCat("_arg_", i), "_Arg");
    auto arg = Add(builder.Attr("T", region->input_types[i]).Attr("index", static_cast<int>(i)), *pair.batch, graph);
    if (!arg.ok()) return arg.status();
    args.push_back(*arg);
  }
  for (const tf::Node* node : pair.inside) copies[node] = graph->CopyNode(node);
  InvariantCopier invariants(graph);
  const auto source = [&](const tf::Edge& edge) -> absl::StatusOr<InvariantCopier::Endpoint> {
    if (edge.src() == pair.batch) return InvariantCopier::Endpoint{args[static_cast<size_t>(edge.src_output())], 0};
    const auto copy = copies.find(edge.src());
    if (copy != copies.end()) return InvariantCopier::Endpoint{copy->second, edge.src_output()};
    return invariants.Copy(edge.src(), edge.src_output());
  };
  for (const tf::Node* node : pair.inside) {
    for (const tf::Edge* edge : node->in_edges()) {
      if (edge->IsControlEdge()) {
        const auto copy = copies.find(edge->src());
        if (copy != copies.end()) graph->AddControlEdge(copy->second, copies[node]);
        continue;
      }
      auto from = source(*edge);
      if (!from.ok()) return from.status();
      graph->AddEdge(from->node, from->output, copies[node], edge->dst_input());
    }
  }
  for (size_t i = 0; i < region->output_types.size(); ++i) {
    const tf::Edge* edge = nullptr;
    TF_RETURN_IF_ERROR(pair.unbatch->input_edge(static_cast<int>(i), &edge));
    auto from = source(*edge);
    if (!from.ok()) return from.status();
    tf::NodeBuilder builder(absl::StrCat("_retval_", i), "_Retval");
    builder.Input(from->node, from->output).Attr("T", region->output_types[i]).Attr("index", static_cast<int>(i));
    auto retval = Add(builder, *pair.batch, graph);
    if (!retval.ok()) return retval.status();
  }
  tf::FixupSourceAndSinkEdges(graph);
  return absl::OkStatus();
}

// Puts one op in place of the region.
absl::StatusOr<tf::Node*> Replace(const BatchPair& pair, const ExtractedRegion& region, int number, tf::Graph* graph) {
  tf::NodeBuilder builder(graph->NewName(absl::StrCat(region.name, "/batched")), "TesseraBatchedCall");
  std::vector<tf::NodeBuilder::NodeOut> inputs;
  for (size_t i = 0; i < region.input_types.size(); ++i) {
    const tf::Edge* edge = nullptr;
    TF_RETURN_IF_ERROR(pair.batch->input_edge(static_cast<int>(i), &edge));
    inputs.emplace_back(edge->src(), edge->src_output());
  }
  builder.Input(inputs).Attr("Tin", region.input_types).Attr("Tout", region.output_types).Attr("region", number);
  auto added = Add(builder, *pair.batch, graph);
  if (!added.ok()) return added.status();
  tf::Node* call = *added;
  const auto gone = [&](tf::Node* node) {
    return node == pair.batch || node == pair.unbatch || pair.inside.count(node) != 0;
  };
  for (const tf::Edge* edge : pair.unbatch->out_edges()) {
    if (!edge->IsControlEdge()) graph->AddEdge(call, edge->src_output(), edge->dst(), edge->dst_input());
  }
  std::vector<tf::Node*> removed(pair.inside.begin(), pair.inside.end());
  removed.push_back(pair.batch);
  removed.push_back(pair.unbatch);
  for (tf::Node* node : removed) {
    for (const tf::Edge* edge : node->in_edges()) {
      if (edge->IsControlEdge() && !gone(edge->src()) && !edge->src()->IsSource()) {
        graph->AddControlEdge(edge->src(), call);
      }
    }
    for (const tf::Edge* edge : node->out_edges()) {
      if (edge->IsControlEdge() && !gone(edge->dst()) && !edge->dst()->IsSink()) {
        graph->AddControlEdge(call, edge->dst());
      }
    }
  }
  for (tf::Node* node : removed) graph->RemoveNode(node);
  return call;
}

// Makes the loop around `call` tell when a request has left it: every Exit of a loop runs once, at its end.
absl::Status AddLoopEnd(tf::Graph* graph, tf::Node* call, int number, ExtractedRegion* region) {
  std::vector<tf::ControlFlowInfo> info;
  TF_RETURN_IF_ERROR(tf::BuildControlFlowInfo(graph, &info));
  const std::string& frame = info[static_cast<size_t>(call->id())].frame_name;
  if (frame.empty()) return absl::OkStatus();
  for (tf::Node* node : graph->op_nodes()) {
    if (!node->IsExit() || info[static_cast<size_t>(node->id())].frame_name != frame) continue;
    tf::NodeBuilder builder(graph->NewName(absl::StrCat(region->name, "/end")), "TesseraLoopEnd");
    auto end = Add(builder.ControlInput(node).Attr("region", number), *call, graph);
    if (!end.ok()) return end.status();
    region->in_loop = true;
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

// Removes what only a region used; it would run for nobody.
void RemoveUnused(tf::Graph* graph, const std::set<int>& ends_before) {
  bool changed = true;
  while (changed) {
    changed = false;
    for (tf::Node* node : graph->op_nodes()) {
      if (ends_before.count(node->id()) != 0 || node->IsRetval() || node->IsArg()) continue;
      const bool used = std::any_of(node->out_edges().begin(), node->out_edges().end(),
                                    [](const tf::Edge* edge) { return !edge->dst()->IsSink(); });
      if (used || node->type_string() == "TesseraLoopEnd") continue;
      graph->RemoveNode(node);
      changed = true;
      break;
    }
  }
}

std::set<int> Ends(const tf::Graph& graph) {
  std::set<int> ends;
  for (const tf::Node* node : graph.op_nodes()) {
    if (std::all_of(node->out_edges().begin(), node->out_edges().end(),
                    [](const tf::Edge* edge) { return edge->dst()->IsSink(); })) {
      ends.insert(node->id());
    }
  }
  return ends;
}

}  // namespace

absl::Status ExtractBatchRegions(tf::Graph* graph, std::vector<ExtractedRegion>* regions,
                                 std::vector<RefusedRegion>* refused) {
  std::vector<tf::Node*> unbatches;
  for (tf::Node* node : graph->op_nodes()) {
    if (node->type_string() == "TesseraUnbatch") unbatches.push_back(node);
  }
  if (unbatches.empty()) return absl::OkStatus();
  const std::set<int> ends = Ends(*graph);
  for (tf::Node* unbatch : unbatches) {
    absl::StatusOr<BatchPair> pair = FindBatchPair(unbatch);
    ExtractedRegion region;
    absl::Status status = pair.status();
    if (status.ok()) status = ReadPairAttributes(*pair->batch, *pair->unbatch, &region);
    if (status.ok()) status = FindInside(&*pair);
    if (status.ok()) {
      region.graph = std::make_unique<tf::Graph>(graph->flib_def());
      status = CopyRegion(*pair, &region);
    }
    if (!status.ok()) {
      refused->push_back({region.name.empty() ? unbatch->name() : region.name, status});
      continue;
    }
    const int number = static_cast<int>(regions->size());
    absl::StatusOr<tf::Node*> call = Replace(*pair, region, number, graph);
    if (!call.ok()) return call.status();
    TF_RETURN_IF_ERROR(AddLoopEnd(graph, *call, number, &region));
    regions->push_back(std::move(region));
  }
  if (!regions->empty()) RemoveUnused(graph, ends);
  tf::FixupSourceAndSinkEdges(graph);
  return absl::OkStatus();
}

}  // namespace tessera
