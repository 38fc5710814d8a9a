// Values of a graph that are the same for every request.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_INVARIANT_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_INVARIANT_H_

#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tensorflow/core/graph/graph.h"

namespace tessera {

// Copies what produces an invariant value from one graph into another: constants, weights, handles of variables, and
// what is computed from them alone. Loops and branches that only pass such a value on are left out.
class InvariantCopier {
 public:
  explicit InvariantCopier(tensorflow::Graph* to) : to_(to) {}

  struct Endpoint {
    tensorflow::Node* node;
    int output;
  };
  // FAILED_PRECONDITION names the op whose value differs from request to request.
  absl::StatusOr<Endpoint> Copy(const tensorflow::Node* node, int output);

 private:
  absl::StatusOr<Endpoint> Copy(const tensorflow::Node* node, int output, int depth);
  absl::StatusOr<tensorflow::Node*> CopyNode(const tensorflow::Node* node, int depth);

  tensorflow::Graph* const to_;
  std::unordered_map<const tensorflow::Node*, tensorflow::Node*> copies_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_INVARIANT_H_
