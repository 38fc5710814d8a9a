#include "cpp_ext/graph/batch_slab.h"

#include "tensorflow/core/framework/types.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

bool Fits(int64_t max_rows, absl::Span<const tf::DataType> types, absl::Span<const tf::TensorShape> row_shapes) {
  int64_t row_bytes = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    if (!tf::DataTypeCanUseMemcpy(types[i])) return false;
    row_bytes += row_shapes[i].num_elements() * tf::DataTypeSize(types[i]);
  }
  return row_bytes > 0 && row_bytes <= RowSlabs::kMaxBytes / max_rows;
}

}  // namespace

RowSlab::RowSlab(int64_t max_rows, absl::Span<const tf::DataType> types, absl::Span<const tf::TensorShape> row_shapes)
    : capacity_(max_rows) {
  for (size_t i = 0; i < types.size(); ++i) {
    tf::TensorShape shape = row_shapes[i];
    shape.InsertDim(0, max_rows);
    tensors_.emplace_back(types[i], shape);
  }
}

int64_t RowSlab::Reserve(int64_t rows) {
  std::lock_guard<std::mutex> lock(mu_);
  if (closed_ || reserved_ + rows > capacity_) return -1;
  reserved_ += rows;
  return reserved_ - rows;
}

int64_t RowSlab::Close() {
  std::lock_guard<std::mutex> lock(mu_);
  closed_ = true;
  return reserved_;
}

SlabRows RowSlabs::Reserve(int64_t rows, int64_t max_rows, absl::Span<const tf::DataType> types,
                           absl::Span<const tf::TensorShape> row_shapes) {
  std::lock_guard<std::mutex> lock(mu_);
  int64_t first_row = open_ == nullptr ? -1 : open_->Reserve(rows);
  if (first_row < 0) {
    if (!Fits(max_rows, types, row_shapes)) return {};
    open_ = std::make_shared<RowSlab>(max_rows, types, row_shapes);
    first_row = open_->Reserve(rows);
  }
  return {open_, first_row};
}

}  // namespace tessera
