// The inputs of a batch from those of its tasks.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_ASSEMBLE_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_ASSEMBLE_H_

#include <cstdint>
#include <vector>

#include "cpp_ext/batch/task.h"
#include "cpp_ext/graph/batch_extract.h"
#include "cpp_ext/graph/batch_slab.h"
#include "cpp_ext/graph/batch_task.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// Copies the task's inputs to rows of a slab for batches of `max_rows`, where it remembers them; does nothing when that
// is not possible. On the thread of the request.
void CopyToSlab(const ExtractedRegion& region, int64_t max_rows, RowSlabs* slabs, RegionTask* task);

// Returns the inputs of a batch, of its padded_rows() rows. Copies nothing for one task that needs no padding, nor for
// tasks that are together in a slab.
std::vector<tensorflow::Tensor> AssembleInputs(const ExtractedRegion& region, const Batch& batch);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_ASSEMBLE_H_
