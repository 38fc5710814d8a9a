// What a call of a region is to the lane: its rows and bytes, and with which others it may share a batch.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_region.h"
#include "cpp_ext/graph/request_batch.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// A dimension of 0 makes a tensor of any shape cost its sender nothing, so what a call makes this process allocate is
// bounded here: elements of one row, and the bytes of the row that stands for a call without rows.
constexpr int64_t kMaxRowElements = int64_t{1} << 40;
constexpr int64_t kMaxBlankRowBytes = int64_t{64} << 20;

}  // namespace

int64_t BatchRegion::BucketLength(int64_t length) const {
  const std::vector<int64_t>& buckets = region_.padding.length_buckets;
  if (buckets.empty()) {
    int64_t power = 1;
    while (power < length) power *= 2;
    return power;
  }
  const auto bucket = std::lower_bound(buckets.begin(), buckets.end(), length);
  return bucket == buckets.end() ? length : *bucket;
}

absl::Status BatchRegion::CountBytes(size_t input, int pad_dim, int64_t padded_length, RegionTask* task) const {
  const tf::Tensor& tensor = task->inputs[input];
  const tf::TensorShape& shape = tensor.shape();
  int64_t elements = 1, most = 1;  // of a row; as if no dimension were 0
  for (int d = 1; d < shape.dims(); ++d) {
    const int64_t size = d == pad_dim ? padded_length : shape.dim_size(d);
    if (__builtin_mul_overflow(most, std::max<int64_t>(size, 1), &most) || most > kMaxRowElements) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", input, " has shape ",
                                                     shape.DebugString(), ", expected rows of at most ",
                                                     kMaxRowElements, " elements (dimensions of 0 count as 1)"));
    }
    elements *= size;
  }
  const int64_t row_bytes = elements * tf::DataTypeSize(tensor.dtype());
  if (task->input_rows == 0 && row_bytes > kMaxBlankRowBytes) {
    return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", input, " has shape ",
                                                   shape.DebugString(), ", expected at most ", kMaxBlankRowBytes,
                                                   " bytes a row of an input without rows"));
  }
  int64_t bytes = 0;  // in a batch
  if (__builtin_mul_overflow(row_bytes, std::max<int64_t>(task->input_rows, 1), &bytes)) bytes = INT64_MAX / 2;
  bytes = std::max(bytes, static_cast<int64_t>(tensor.TotalBytes()));
  if (__builtin_add_overflow(task->bytes, bytes, &task->bytes)) task->bytes = INT64_MAX / 2;
  return absl::OkStatus();
}

absl::Status BatchRegion::Describe(const Step& step, RegionTask* task, Key* key) const {
  const std::vector<int>& pad_dims = region_.padding.pad_dims;
  key->push_back(step.pin() == nullptr ? 0 : reinterpret_cast<int64_t>(step.pin()->route()));
  task->input_rows = -1;
  for (size_t i = 0; i < task->inputs.size(); ++i) {
    const tf::TensorShape& shape = task->inputs[i].shape();
    const bool unequal = shape.dims() == 0 || (task->input_rows >= 0 && shape.dim_size(0) != task->input_rows);
    if (unequal && region_.whole_request) return UnequalRows();
    if (shape.dims() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("region ", name(), ": input ", i, " is a scalar, expected rows along dimension 0"));
    }
    if (task->input_rows >= 0 && shape.dim_size(0) != task->input_rows) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", i, " has ", shape.dim_size(0),
                                                     " rows, expected as many as input 0: ", task->input_rows));
    }
    task->input_rows = shape.dim_size(0);
    key->push_back(shape.dims());
    for (int d = 1; d < shape.dims(); ++d) key->push_back(shape.dim_size(d));
    const int dim = pad_dims.empty() ? -1 : pad_dims[i];
    if (dim >= shape.dims()) {
      return absl::InvalidArgumentError(absl::StrCat("region ", name(), ": input ", i, " has ", shape.dims(),
                                                     " dimensions, expected a dimension ", dim, " of variable length"));
    }
    const int64_t length = dim < 1 ? 0 : shape.dim_size(dim);
    const int64_t padded_length = dim < 1 ? 0 : BucketLength(std::min(length, kMaxRowElements + 1));
    if (!pad_dims.empty()) {
      task->lengths.push_back(length);
      task->padded_lengths.push_back(padded_length);
    }
    if (dim >= 1) (*key)[key->size() - static_cast<size_t>(shape.dims() - dim)] = padded_length;
    absl::Status status = CountBytes(i, dim, padded_length, task);
    if (!status.ok()) return status;
  }
  task->rows = std::max<int64_t>(1, task->input_rows);
  return absl::OkStatus();
}

void BatchRegion::CountPadding(const RegionTask& task) {
  for (size_t i = 0; i < task.lengths.size(); ++i) {
    if (task.lengths[i] == 0) continue;
    const auto own = static_cast<uint64_t>(task.inputs[i].NumElements());
    const uint64_t padded =
        own / static_cast<uint64_t>(task.lengths[i]) * static_cast<uint64_t>(task.padded_lengths[i]);
    entry_->CountPadding(padded - own, padded);
  }
}

}  // namespace tessera
