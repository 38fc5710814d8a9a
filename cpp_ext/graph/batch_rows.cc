#include "cpp_ext/graph/batch_rows.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "tensorflow/core/framework/register_types.h"
#include "tensorflow/core/framework/types.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// A view of less than this part of its buffer is copied.
constexpr int64_t kMinViewedPart = 4;

char* Bytes(const tf::Tensor& tensor) { return static_cast<char*>(tensor.data()); }

int64_t RowElements(const tf::Tensor& tensor) {
  int64_t elements = 1;
  for (int d = 1; d < tensor.dims(); ++d) elements *= tensor.dim_size(d);
  return elements;
}

// Copies `count` elements; strings are copied one by one, all else at once.
void CopyElements(const tf::Tensor& from, int64_t from_element, int64_t to_element, int64_t count, tf::Tensor* to) {
  if (count == 0) return;
  if (from.dtype() == tf::DT_STRING) {
    const auto source = from.flat<tf::tstring>();
    auto target = to->flat<tf::tstring>();
    for (int64_t i = 0; i < count; ++i) target(to_element + i) = source(from_element + i);
    return;
  }
  const int64_t size = tf::DataTypeSize(from.dtype());
  std::memcpy(Bytes(*to) + to_element * size, Bytes(from) + from_element * size, static_cast<size_t>(count * size));
}

void FillElements(const tf::Tensor& value, int64_t to_element, int64_t count, tf::Tensor* to) {
  for (int64_t i = 0; i < count; ++i) CopyElements(value, 0, to_element + i, 1, to);
}

// Elements of the dimensions before and after `dim`.
int64_t Outer(const tf::Tensor& tensor, int dim) {
  int64_t elements = 1;
  for (int d = 0; d < dim; ++d) elements *= tensor.dim_size(d);
  return elements;
}
int64_t Inner(const tf::Tensor& tensor, int dim) {
  int64_t elements = 1;
  for (int d = dim + 1; d < tensor.dims(); ++d) elements *= tensor.dim_size(d);
  return elements;
}

}  // namespace

bool CanBatch(tf::DataType dtype) { return dtype == tf::DT_STRING || tf::DataTypeCanUseMemcpy(dtype); }

void CopyRows(const tf::Tensor& from, int pad_dim, const tf::Tensor* pad_value, int64_t first_row, tf::Tensor* to) {
  const int64_t base = first_row * RowElements(*to);
  if (pad_dim < 1 || from.dim_size(pad_dim) == to->dim_size(pad_dim)) {
    return CopyElements(from, 0, base, from.NumElements(), to);
  }
  const int64_t outer = Outer(from, pad_dim), inner = Inner(from, pad_dim);
  const int64_t length = from.dim_size(pad_dim) * inner, padded = to->dim_size(pad_dim) * inner;
  for (int64_t i = 0; i < outer; ++i) {
    CopyElements(from, i * length, base + i * padded, length, to);
    FillElements(*pad_value, base + i * padded + length, padded - length, to);
  }
}

void FillRows(int64_t source_row, int64_t first_row, int64_t end_row, tf::Tensor* to) {
  const int64_t elements = RowElements(*to);
  if (source_row < 0) {
    if (to->dtype() == tf::DT_STRING) return;  // a new tensor's strings are empty
    const int64_t row_bytes = elements * tf::DataTypeSize(to->dtype());
    std::memset(Bytes(*to) + first_row * row_bytes, 0, static_cast<size_t>((end_row - first_row) * row_bytes));
    return;
  }
  for (int64_t row = first_row; row < end_row; ++row) {
    CopyElements(*to, source_row * elements, row * elements, elements, to);
  }
}

tf::Tensor TakeRows(const tf::Tensor& from, int64_t first_row, int64_t rows) {
  if (first_row == 0 && rows == from.dim_size(0)) return from;
  tf::Tensor view = from.Slice(first_row, first_row + rows);
  if (view.IsAligned() && rows * kMinViewedPart >= from.dim_size(0)) return view;
  tf::Tensor copy(from.dtype(), view.shape());
  CopyElements(view, 0, 0, view.NumElements(), &copy);
  return copy;
}

tf::Tensor CutDimension(const tf::Tensor& from, int dim, int64_t length) {
  if (from.dim_size(dim) == length) return from;
  tf::TensorShape shape = from.shape();
  shape.set_dim(dim, length);
  tf::Tensor cut(from.dtype(), shape);
  const int64_t outer = Outer(from, dim), inner = Inner(from, dim);
  for (int64_t i = 0; i < outer; ++i) {
    CopyElements(from, i * from.dim_size(dim) * inner, i * length * inner, length * inner, &cut);
  }
  return cut;
}

}  // namespace tessera
