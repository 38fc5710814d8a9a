// The ops that the loader puts into a signature's graph: TesseraBatchedCall runs a region, TesseraLoopEnd tells that a
// request has left the loop around one.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_OP_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_OP_H_

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "cpp_ext/graph/batch_region.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tessera {

// Gives the kernel its region, if it is one of the two. The regions must outlive the kernel.
void BindRegion(absl::Span<const std::shared_ptr<BatchRegion>> regions, tensorflow::OpKernel* kernel);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_OP_H_
