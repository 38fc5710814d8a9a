// Regions that are taken out of a graph, and those that must not be.
#include "cpp_ext/graph/batch_extract.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/graph/batch_functions.h"
#include "cpp_ext/graph/batch_op.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/platform/protobuf.h"
#include "tensorflow/core/public/version.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Brings the ops that the loader makes into this program.
const auto volatile kBindRegion = &BindRegion;

constexpr char kFloats[] = "attr { key: 'T' value { list { type: DT_FLOAT } } }";

std::string Node(const std::string& name, const std::string& op, const std::vector<std::string>& inputs,
                 const std::string& attrs) {
  std::string text = "node { name: '" + name + "' op: '" + op + "' ";
  for (const std::string& input : inputs) text += "input: '" + input + "' ";
  return text + attrs + " } ";
}
std::string Type(const std::string& value = "DT_FLOAT") { return "attr { key: 'T' value { type: " + value + " } }"; }
std::string Argument(const std::string& name, int index) {
  return Node(name, "_Arg", {}, Type() + "attr { key: 'index' value { i: " + std::to_string(index) + " } }");
}
std::string Batch(const std::string& name, const std::string& input) {
  return Node(name, "TesseraBatch", {input},
              std::string(kFloats) + "attr { key: 'region' value { s: '" + name + "' } }");
}
std::string Unbatch(const std::vector<std::string>& inputs, const std::string& attrs = "") {
  return Node("unbatch", "TesseraUnbatch", inputs, kFloats + attrs);
}
std::string Result(const std::string& input) {
  return Node("result", "_Retval", {input}, Type() + "attr { key: 'index' value { i: 0 } }");
}
std::string Ints(const std::string& name, int value) {
  return "attr { key: '" + name + "' value { list { i: " + std::to_string(value) + " } } }";
}

struct Extracted {
  std::unique_ptr<tf::Graph> graph;
  std::vector<ExtractedRegion> regions;
  std::vector<RefusedRegion> refused;

  std::string reason() const {
    return refused.size() == 1 ? std::string(refused[0].reason.message()) : std::to_string(refused.size()) + " refused";
  }
};

Extracted Extract(const std::string& text) {
  tf::GraphDef def;
  EXPECT_TRUE(tf::protobuf::TextFormat::ParseFromString(text, &def));
  def.mutable_versions()->set_producer(TF_GRAPH_DEF_VERSION);
  Extracted result;
  result.graph = std::make_unique<tf::Graph>(tf::OpRegistry::Global());
  tf::GraphConstructorOptions options;
  options.allow_internal_ops = true;
  const absl::Status built = tf::ConvertGraphDefToGraph(options, def, result.graph.get());
  EXPECT_TRUE(built.ok()) << built;
  RefusePairsInFunctions(*result.graph, result.graph->flib_def(), &result.refused);
  const absl::Status status = ExtractBatchRegions(result.graph.get(), &result.regions, &result.refused);
  EXPECT_TRUE(status.ok()) << status;
  return result;
}

TEST(BatchExtract, OneOpTakesThePlaceOfTheRegion) {
  const Extracted result = Extract(Argument("x", 0) + Batch("r", "x") + Node("a", "Neg", {"r"}, Type()) +
                                   Unbatch({"a", "r:1"}) + Result("unbatch"));
  ASSERT_EQ(result.regions.size(), 1u) << result.reason();
  EXPECT_EQ(result.graph->num_op_nodes(), 3);  // _Arg, TesseraBatchedCall, _Retval
  EXPECT_EQ(result.regions[0].graph->num_op_nodes(), 3);
}

TEST(BatchExtract, WhatRunsBetweenTwoOpsOfARegionRefusesIt) {  // else the call would wait for itself
  const Extracted result = Extract(Argument("x", 0) + Batch("r", "x") + Node("a", "Neg", {"r"}, Type()) +
                                   Node("between", "NoOp", {"^a"}, "") + Node("b", "Neg", {"a", "^between"}, Type()) +
                                   Unbatch({"b", "r:1"}) + Result("unbatch"));
  EXPECT_EQ(result.reason(), "between (NoOp) has to run after one op of the region and before another, b");
}

TEST(BatchExtract, WhatRunsBetweenTheRegionAndItsEndRefusesIt) {
  const Extracted result =
      Extract(Argument("x", 0) + Batch("r", "x") + Node("a", "Neg", {"r"}, Type()) +
              Node("between", "NoOp", {"^a"}, "") + Unbatch({"a", "r:1", "^between"}) + Result("unbatch"));
  EXPECT_EQ(result.reason(), "between (NoOp) has to run after one op of the region and before another, unbatch");
}

TEST(BatchExtract, WhatOnlyFollowsTheRegionRunsAfterIt) {
  const Extracted result =
      Extract(Argument("x", 0) + Batch("r", "x") + Node("a", "Neg", {"r"}, Type()) + Node("after", "NoOp", {"^a"}, "") +
              Unbatch({"a", "r:1"}) + Node("y", "Neg", {"unbatch", "^after"}, Type()) + Result("y"));
  EXPECT_EQ(result.regions.size(), 1u) << result.reason();
}

TEST(BatchExtract, TrimmingByAnInputThatIsNotThereIsRefused) {
  const std::string begin = Argument("x", 0) + Batch("r", "x") + Node("a", "Neg", {"r"}, Type());
  EXPECT_EQ(Extract(begin + Unbatch({"a", "r:1"}, Ints("trim_dims", 1) + Ints("trim_inputs", 1)) + Result("unbatch"))
                .reason(),
            "a value of trim_inputs is 1, expected an input, less than 1");
  EXPECT_EQ(Extract(begin + Unbatch({"a", "r:1"}, Ints("trim_dims", 1) + Ints("trim_inputs", 0)) + Result("unbatch"))
                .reason(),
            "a value of trim_inputs is 0, expected an input that has a variable length in pad_dims");
}

TEST(BatchExtract, APairInAFunctionThatIsNotInlinedIsTold) {
  const std::string function =
      "library { function { signature { name: 'f' input_arg { name: 'x' type: DT_FLOAT } "
      "output_arg { name: 'y' type: DT_FLOAT } } "
      "node_def { name: 'r' op: 'TesseraBatch' input: 'x' " +
      std::string(kFloats) +
      "attr { key: 'region' value { s: 'hidden' } } } "
      "node_def { name: 'u' op: 'TesseraUnbatch' input: 'r:batched:0' input: 'r:token:0' " +
      kFloats + "} ret { key: 'y' value: 'u:unbatched:0' } } }";
  const std::string call = Node(
      "call", "PartitionedCall", {"x"},
      "attr { key: 'Tin' value { list { type: DT_FLOAT } } } attr { key: 'Tout' value { list { type: DT_FLOAT } } } "
      "attr { key: 'f' value { func { name: 'f' } } }");
  const Extracted result = Extract(Argument("x", 0) + call + Result("call") + function);
  EXPECT_EQ(result.reason(), "it is in the function f, which the optimizer did not inline into the signature's graph");
  EXPECT_EQ(result.refused[0].name, "hidden");
}

}  // namespace
}  // namespace tessera
