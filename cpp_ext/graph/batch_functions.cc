#include "cpp_ext/graph/batch_functions.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// The functions that are reached from what was noted.
class Reached {
 public:
  explicit Reached(const tf::FunctionLibraryDefinition& library) : library_(library) {}

  void Note(const std::string& function) {
    if (library_.Contains(function) && all_.insert(function).second) next_.push_back(function);
  }
  void Note(const tf::AttrValue& value) {
    if (value.has_func()) Note(value.func().name());
    for (const tf::NameAttrList& function : value.list().func()) Note(function.name());
  }
  // The next function that was not returned before, or null.
  const tf::FunctionDef* Next() {
    if (next_.empty()) return nullptr;
    const tf::FunctionDef* function = library_.Find(next_.back());
    next_.pop_back();
    return function;
  }

 private:
  const tf::FunctionLibraryDefinition& library_;
  std::set<std::string> all_;
  std::vector<std::string> next_;
};

}  // namespace

void RefusePairsInFunctions(const tf::Graph& graph, const tf::FunctionLibraryDefinition& library,
                            std::vector<RefusedRegion>* refused) {
  Reached reached(library);
  for (const tf::Node* node : graph.op_nodes()) {
    reached.Note(node->type_string());
    for (const auto& attr : node->attrs()) reached.Note(attr.second);
  }
  while (const tf::FunctionDef* function = reached.Next()) {
    for (const tf::NodeDef& node : function->node_def()) {
      reached.Note(node.op());
      for (const auto& attr : node.attr()) reached.Note(attr.second);
      if (node.op() != "TesseraBatch") continue;
      std::string region = node.name();
      tf::TryGetNodeAttr(node, "region", &region);
      refused->push_back({region, absl::FailedPreconditionError(absl::StrCat(
                                      "it is in the function ", function->signature().name(),
                                      ", which the optimizer did not inline into the signature's graph"))});
    }
  }
}

}  // namespace tessera
