// What the two ops of a pair say, read and checked together.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_ATTRIBUTES_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_ATTRIBUTES_H_

#include "absl/status/status.h"
#include "cpp_ext/graph/batch_extract.h"
#include "tensorflow/core/graph/graph.h"

namespace tessera {

// Sets all of `region` but its graph. The ops check their own attributes, but only where shapes are inferred, and
// neither sees the other. FAILED_PRECONDITION: the attribute, what it is, what was expected.
absl::Status ReadPairAttributes(const tensorflow::Node& batch_op, const tensorflow::Node& unbatch_op,
                                ExtractedRegion* region);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_PAIR_ATTRIBUTES_H_
