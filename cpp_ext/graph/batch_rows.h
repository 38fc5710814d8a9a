// Rows of tensors: put together for a batch, and taken apart again.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_ROWS_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_ROWS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// Whether rows of the type can be batched: everything but resources, variants and references.
bool CanBatch(tensorflow::DataType dtype);

// Writes the rows of `from` to `to` from row `first_row` on. The tensors' trailing dimensions are equal, but that
// dimension `pad_dim` (≥ 1; -1: none) of `from` may be shorter: `pad_value`, a scalar, fills the rest.
// REQUIRES: same dtype, for which CanBatch; enough rows in `to`; `to` is shared with nobody who uses those rows.
void CopyRows(const tensorflow::Tensor& from, int pad_dim, const tensorflow::Tensor* pad_value, int64_t first_row,
              tensorflow::Tensor* to);

// Writes copies of row `source_row` of the same tensor, or zeros when that is < 0, to [first_row, end_row).
void FillRows(int64_t source_row, int64_t first_row, int64_t end_row, tensorflow::Tensor* to);

// Returns rows [first_row, first_row + rows). A view where it is aligned and a good part of the buffer, so that a slow
// reader of few rows does not keep a large batch in memory; a copy otherwise.
tensorflow::Tensor TakeRows(const tensorflow::Tensor& from, int64_t first_row, int64_t rows);

// Returns `from` with dimension `dim` (≥ 1) cut to `length`. REQUIRES: length is not larger than the dimension.
tensorflow::Tensor CutDimension(const tensorflow::Tensor& from, int dim, int64_t length);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_ROWS_H_
