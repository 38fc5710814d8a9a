// One batched region of a graph, or a whole signature: turns the calls of many requests into batches, runs those, and
// hands the rows back.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_REGION_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_REGION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/graph/batch_extract.h"
#include "cpp_ext/graph/batch_groups.h"
#include "cpp_ext/graph/batch_slab.h"
#include "cpp_ext/graph/batch_task.h"
#include "cpp_ext/graph/step_runner.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tessera {

// Thread-safe. Shared by the graph and by the lane's queues, which may keep it for a moment after the last pin on its
// version has gone; the graph calls Close before it goes.
class BatchRegion : public BatchRunner, public BatchedLoop, public std::enable_shared_from_this<BatchRegion> {
 public:
  BatchRegion(BatchGroups::Entry* entry, ExtractedRegion region, std::shared_ptr<const StepRunner> runner);

  // Runs the region for one call; `done` runs once, possibly before this returns. INVALID_ARGUMENT: an input is a
  // scalar, or the inputs have different numbers of rows. What the lane says (batch/lane.h) becomes the call's error.
  void Submit(Step* step, tensorflow::OpKernelContext* ctx, tensorflow::AsyncOpKernel::DoneCallback done);
  // Likewise for a whole request: the step's own args in, its results out; ends with step->Finish.
  void Submit(Step* step);
  // Whether the outputs had the rows of the inputs so far. Once they had not, only whole requests may go on, and each
  // has to run by itself.
  bool rows_are_split() const { return rows_are_split_.load(std::memory_order_relaxed); }
  // Ends a whole request: answers it, or runs it by itself when it failed because its rows cannot be split.
  void EndRequest(Step* step, const absl::Status& status, bool started) const;
  // Ends the queues and lets go of what runs the batches. REQUIRES: no more Submit, and no batch runs.
  void Close();

  const std::string& name() const { return region_.name; }
  bool in_loop() const { return region_.in_loop; }
  const LengthPadding& padding() const { return region_.padding; }
  BatchLane& lane() const { return lane_; }

  // BatchRunner.
  void Run(std::shared_ptr<Batch> batch) override;
  void Cancel(Batch* batch) override;
  bool occupies_thread() const override { return !runner_->ends_elsewhere(); }
  bool may_bisect(Code code) const override;
  // BatchedLoop.
  void Enter() override { lane_.EnterLoop(entry_->group()); }
  void Leave() override { lane_.LeaveLoop(entry_->group()); }

 private:
  class Execution;
  // What calls must have in common to share a batch: the placement of their version, and the trailing dimensions of
  // their inputs (lengths: as padded). Types are the graph's.
  using Key = absl::InlinedVector<int64_t, 16>;
  struct Shape {
    std::shared_ptr<BatchQueue> queue;
    std::shared_ptr<RowSlabs> slabs;
    uint64_t last_used = 0;
  };

  void Submit(std::shared_ptr<RegionCall> call, Step* step);
  absl::Status Describe(const Step& step, RegionTask* task, Key* key) const;
  int64_t BucketLength(int64_t length) const;
  // Adds what one input takes in a batch to the task's bytes. INVALID_ARGUMENT: its shape is more than that can be.
  absl::Status CountBytes(size_t input, int pad_dim, int64_t padded_length, RegionTask* task) const;
  void CountPadding(const RegionTask& task);
  Shape Find(const Key& key);
  std::shared_ptr<Execution> Forget(const Batch* batch);
  absl::Status CheckOutputs(const std::vector<tensorflow::Tensor>& outputs, int64_t rows);

  BatchGroups::Entry* const entry_;  // of the graph that this belongs to, which calls and batches pin
  BatchLane& lane_;
  const ExtractedRegion region_;
  std::shared_ptr<const StepRunner> runner_;  // until Close
  std::atomic<bool> rows_are_split_{true};
  std::mutex mu_;
  absl::flat_hash_map<Key, Shape> shapes_;                                 // guarded by mu_; at most kMaxShapes
  uint64_t uses_ = 0;                                                      // guarded by mu_
  absl::flat_hash_map<const Batch*, std::shared_ptr<Execution>> running_;  // guarded by mu_
  std::atomic<int64_t> running_count_{0};
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_REGION_H_
