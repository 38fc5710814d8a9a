// Pairs in functions that a graph calls.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_FUNCTIONS_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_FUNCTIONS_H_

#include <vector>

#include "cpp_ext/graph/batch_extract.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/graph/graph.h"

namespace tessera {

// Adds the regions in functions of `library` that `graph` calls, and that were not inlined: only the graph's own ops
// can be moved.
void RefusePairsInFunctions(const tensorflow::Graph& graph, const tensorflow::FunctionLibraryDefinition& library,
                            std::vector<RefusedRegion>* refused);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_FUNCTIONS_H_
