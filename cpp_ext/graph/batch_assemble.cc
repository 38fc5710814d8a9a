#include "cpp_ext/graph/batch_assemble.h"

#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "cpp_ext/graph/batch_rows.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

const RegionTask& TaskOf(const Batch& batch, size_t index) {
  return static_cast<const RegionTask&>(*batch.tasks()[index]);
}

int PadDim(const ExtractedRegion& region, size_t input) {
  return region.padding.pad_dims.empty() ? -1 : region.padding.pad_dims[input];
}

tf::TensorShape RowShape(const ExtractedRegion& region, const RegionTask& task, size_t input) {
  tf::TensorShape shape = task.inputs[input].shape();
  const int pad_dim = PadDim(region, input);
  if (pad_dim >= 1) shape.set_dim(pad_dim, task.padded_lengths[input]);
  shape.RemoveDim(0);
  return shape;
}

void CopyInput(const ExtractedRegion& region, const RegionTask& task, size_t input, int64_t first_row, tf::Tensor* to) {
  const int pad_dim = PadDim(region, input);
  CopyRows(task.inputs[input], pad_dim, pad_dim < 1 ? nullptr : &region.padding.pad_values[input], first_row, to);
}

// The inputs of a batch of one as they are.
bool PassThrough(const Batch& batch, std::vector<tf::Tensor>* args) {
  const RegionTask& task = TaskOf(batch, 0);
  if (batch.tasks().size() != 1 || task.input_rows != batch.padded_rows() || task.lengths != task.padded_lengths) {
    return false;
  }
  // Pieces of a large input may begin anywhere; kernels want aligned memory.
  if (!std::all_of(task.inputs.begin(), task.inputs.end(), [](const tf::Tensor& input) { return input.IsAligned(); })) {
    return false;
  }
  args->assign(task.inputs.begin(), task.inputs.end());
  return true;
}

bool UseSlab(const Batch& batch, std::vector<tf::Tensor>* args) {
  const SlabRows& first = TaskOf(batch, 0).slab;
  if (first.slab == nullptr) return false;
  int64_t row = first.first_row;
  for (size_t i = 0; i < batch.tasks().size(); ++i) {
    const RegionTask& task = TaskOf(batch, i);
    if (task.slab.slab != first.slab || task.slab.first_row != row) return false;
    row += task.rows;
  }
  const int64_t end_row = first.first_row + batch.padded_rows();
  const int64_t reserved = first.slab->Close();
  // Rows after ours may be somebody's already.
  if (end_row > first.slab->capacity() || (end_row > row && reserved > row)) return false;
  for (const tf::Tensor& tensor : first.slab->tensors()) {
    args->push_back(tensor.Slice(first.first_row, end_row));
    if (!args->back().IsAligned()) {
      args->clear();
      return false;
    }
  }
  for (tf::Tensor& tensor : *args) FillRows(0, batch.rows(), batch.padded_rows(), &tensor);
  return true;
}

tf::Tensor Concatenate(const ExtractedRegion& region, const Batch& batch, size_t input) {
  tf::TensorShape shape = RowShape(region, TaskOf(batch, 0), input);
  shape.InsertDim(0, batch.padded_rows());
  tf::Tensor joined(region.input_types[input], shape);
  int64_t row = 0;
  int64_t real_row = -1;  // rows that are nobody's answer repeat one that is
  for (size_t i = 0; i < batch.tasks().size(); ++i) {
    const RegionTask& task = TaskOf(batch, i);
    if (task.input_rows == 0) {
      FillRows(-1, row, row + 1, &joined);
    } else {
      CopyInput(region, task, input, row, &joined);
      real_row = row;
    }
    row += task.rows;
  }
  FillRows(real_row, row, batch.padded_rows(), &joined);
  return joined;
}

}  // namespace

void CopyToSlab(const ExtractedRegion& region, int64_t max_rows, RowSlabs* slabs, RegionTask* task) {
  if (task->input_rows == 0) return;
  absl::InlinedVector<tf::TensorShape, 4> row_shapes;
  for (size_t i = 0; i < task->inputs.size(); ++i) row_shapes.push_back(RowShape(region, *task, i));
  SlabRows rows = slabs->Reserve(task->input_rows, max_rows, region.input_types, row_shapes);
  if (rows.slab == nullptr) return;
  for (size_t i = 0; i < task->inputs.size(); ++i) {
    // A handle of its own: writing through the slab's, which others write through too, would race for nothing but
    // look as if it did.
    tf::Tensor to = rows.slab->tensors()[i];
    CopyInput(region, *task, i, rows.first_row, &to);
  }
  task->slab = std::move(rows);
}

std::vector<tf::Tensor> AssembleInputs(const ExtractedRegion& region, const Batch& batch) {
  std::vector<tf::Tensor> args;
  if (PassThrough(batch, &args) || UseSlab(batch, &args)) return args;
  for (size_t i = 0; i < region.input_types.size(); ++i) args.push_back(Concatenate(region, batch, i));
  return args;
}

}  // namespace tessera
