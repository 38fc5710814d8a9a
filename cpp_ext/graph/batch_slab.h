// Memory of a batch that is still forming: requests that arrive while the device is busy copy their rows into it
// themselves, so that the thread that runs the batch has nothing to copy.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_SLAB_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_SLAB_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/types/span.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// One tensor an input, with the rows of a full batch. Rows are reserved under a lock and then written without it;
// nobody writes rows that another has reserved. Thread-safe.
class RowSlab {
 public:
  RowSlab(int64_t max_rows, absl::Span<const tensorflow::DataType> types,
          absl::Span<const tensorflow::TensorShape> row_shapes);
  // The first of `rows` rows, or -1 when the slab is full or closed.
  int64_t Reserve(int64_t rows);
  // Ends reservations, because a batch is about to run with the slab's rows; returns how many were reserved.
  int64_t Close();
  int64_t capacity() const { return capacity_; }
  std::vector<tensorflow::Tensor>& tensors() { return tensors_; }

 private:
  const int64_t capacity_;
  std::vector<tensorflow::Tensor> tensors_;
  std::mutex mu_;
  int64_t reserved_ = 0;  // guarded by mu_
  bool closed_ = false;   // guarded by mu_
};

// Where the rows of one task are; `slab` is null when they were not copied.
struct SlabRows {
  std::shared_ptr<RowSlab> slab;
  int64_t first_row = 0;
};

// The open slab of the tasks of one shape. Thread-safe.
class RowSlabs {
 public:
  // Returns `rows` rows of a slab for tensors of `row_shapes` (without dimension 0); none when a batch of `max_rows`
  // would need more than kMaxBytes, or has types that are not plain bytes. REQUIRES: rows ≤ max_rows.
  SlabRows Reserve(int64_t rows, int64_t max_rows, absl::Span<const tensorflow::DataType> types,
                   absl::Span<const tensorflow::TensorShape> row_shapes);

  static constexpr int64_t kMaxBytes = int64_t{64} << 20;

 private:
  std::mutex mu_;
  std::shared_ptr<RowSlab> open_;  // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_SLAB_H_
