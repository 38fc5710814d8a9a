// The calls of a batched region as the lane sees them.
//
// A call that fits into a batch is one task. A larger one is cut into pieces, each a task, whose rows are put together
// again.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_TASK_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_TASK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/graph/batch_slab.h"
#include "cpp_ext/graph/step.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tessera {

class BatchRegion;

// What a region's execution leaves for its tasks.
struct RegionResult : BatchResult {
  std::vector<tensorflow::Tensor> outputs;  // dimension 0: the batch's padded rows
};

// Everything that a batch needs of a task, so that it can run on when the request is over.
class RegionTask : public BatchTask {
 public:
  ~RegionTask() override;

  absl::InlinedVector<tensorflow::Tensor, 4> inputs;
  absl::InlinedVector<int64_t, 4> lengths;  // per input: its padded dimension's own length; empty without padding
  absl::InlinedVector<int64_t, 4> padded_lengths;
  int64_t input_rows = 0;  // may be 0: the task then takes one row of zeros, which is nobody's answer
  std::shared_ptr<const ServedVersion> pin;
  SlabRows slab;                     // where the rows were copied on arrival, if they were
  std::atomic<bool> started{false};  // a batch with it has begun to run
};

// One call of the region's op, or one whole request. Kept by its tasks and by the cancellation callback.
class RegionCall : public RegionTask, public std::enable_shared_from_this<RegionCall> {
 public:
  RegionCall(BatchRegion* region, Step* step, tensorflow::OpKernelContext* ctx,
             tensorflow::AsyncOpKernel::DoneCallback done)
      : region_(region), step_(step), ctx_(ctx), done_(std::move(done)) {}
  // A whole request: the step itself takes the outputs and is ended.
  RegionCall(BatchRegion* region, Step* step) : region_(region), step_(step), ctx_(nullptr) {}

  // Lets the step's cancellation reach the lane. False: it is cancelled already, and the call was ended.
  bool WatchCancellation();
  // Ends the call. Exactly once.
  void Finish(const absl::Status& status);
  // The call as one task.
  void Done(const Status& status, Batch* batch, int64_t first_row) override;

  // The call as several tasks: cuts it, after Describe, into pieces of at most `max_rows` rows.
  std::vector<std::shared_ptr<BatchTask>> Cut(int64_t max_rows);

 private:
  class Piece;
  void PieceDone(const Status& status, Batch* batch, int64_t first_row, const Piece& piece);
  // Copies a piece's rows to their place. REQUIRES: mu_ is held.
  absl::Status Join(const RegionResult& result, int64_t first_row, const Piece& piece);
  void CancelTasks();
  tensorflow::CancellationManager* cancellation() const;
  void SetOutput(size_t index, tensorflow::Tensor value);
  // The rows of one output, cut to the call's own length.
  tensorflow::Tensor Output(const RegionResult& result, size_t index, int64_t first_row, int64_t rows) const;

  BatchRegion* const region_;
  Step* const step_;                        // valid until the call has ended
  tensorflow::OpKernelContext* const ctx_;  // likewise; null for a whole request
  tensorflow::AsyncOpKernel::DoneCallback done_;
  tensorflow::CancellationToken token_ = tensorflow::CancellationManager::kInvalidToken;
  // Of a call that was cut.
  std::mutex mu_;
  std::vector<std::weak_ptr<BatchTask>> pieces_;  // constant after Cut
  size_t unfinished_ = 0;                         // guarded by mu_
  absl::Status first_error_;                      // guarded by mu_
  std::vector<tensorflow::Tensor> joined_;        // guarded by mu_; empty until the first piece ends
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_TASK_H_
