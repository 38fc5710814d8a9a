// A TesseraBatch, its TesseraUnbatch, and the ops between them.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_H_

#include <unordered_set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tensorflow/core/graph/graph.h"

namespace tessera {

struct BatchPair {
  tensorflow::Node* batch;
  tensorflow::Node* unbatch;
  std::unordered_set<tensorflow::Node*> inside;
};

// Returns the pair that `unbatch` ends, without what lies inside. FAILED_PRECONDITION: its token comes from elsewhere,
// or has two users.
absl::StatusOr<BatchPair> FindBatchPair(tensorflow::Node* unbatch);

// Finds what lies inside. FAILED_PRECONDITION names the op because of which it cannot run as one: it has effects,
// begins or ends another region, its value leaves the region beside TesseraUnbatch, or it has to run after something
// outside that has to run after another op of the region.
absl::Status FindInside(BatchPair* pair);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_H_
