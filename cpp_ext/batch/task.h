// What is batched: tasks, the batches made of them, and what runs a batch. No TensorFlow here; `graph` derives from
// these.
#ifndef TESSERA_CPP_EXT_BATCH_TASK_H_
#define TESSERA_CPP_EXT_BATCH_TASK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"

namespace tessera {

class Batch;
class BatchQueue;

// Some rows of one request that want to run. Shared by the request, the lane and the batch.
class BatchTask {
 public:
  virtual ~BatchTask() = default;

  // Runs exactly once, without any lock held, on any thread, possibly before Enqueue returns. With OK, the task's rows
  // are [first_row, first_row + rows) of what the runner left in `batch`; with an error `batch` may be null. May call
  // the lane (loops do, every step).
  virtual void Done(const Status& status, Batch* batch, int64_t first_row) = 0;

  // Set before Enqueue, constant afterwards.
  int64_t rows = 1;   // ≥ 1 and ≤ the policy's max_batch_size, else Enqueue refuses it
  int64_t bytes = 0;  // of the inputs, for the bound
  int64_t deadline_ns = TESSERA_NO_DEADLINE;
  int32_t priority = -1;  // < 0: the policy's

 private:
  friend class BatchScheduler;
  friend class BatchQueue;
  // kDone: answered, or about to be by the thread that set it.
  enum class State : uint8_t { kNew, kQueued, kRunning, kDone };
  // All guarded by the lane's lock.
  State state_ = State::kNew;
  int32_t class_ = 0;      // the priority it is served with; falls to 0 as it ages
  uint64_t sequence_ = 0;  // order of arrival in the lane
  int64_t enqueued_ns_ = 0;
  int64_t urgency_ns_ = 0;       // the order within a class: the deadline, or some patience after the arrival
  BatchQueue* queue_ = nullptr;  // kQueued: where it waits, between `older_` and `newer_`
  BatchTask* older_ = nullptr;
  BatchTask* newer_ = nullptr;
  Batch* batch_ = nullptr;  // kRunning: the batch it is in
};

// What a runner leaves in a batch for its tasks' Done.
class BatchResult {
 public:
  virtual ~BatchResult() = default;
};

// Tasks that run as one. Made by the lane; `tasks`, `rows` and `padded_rows` are constant while it runs.
class Batch {
 public:
  virtual ~Batch() = default;
  // In row order: task i's rows follow those of task i - 1. A task stays here, and its inputs valid, even if it was
  // answered (cancelled, expired) meanwhile.
  const std::vector<std::shared_ptr<BatchTask>>& tasks() const { return tasks_; }
  int64_t rows() const { return rows_; }
  // The size to run: ≥ rows(), an allowed size. The rows above rows() are the runner's to fill.
  int64_t padded_rows() const { return padded_rows_; }

  std::unique_ptr<BatchResult> result;  // the runner's, set before Finish

 protected:
  friend class BatchScheduler;
  std::vector<std::shared_ptr<BatchTask>> tasks_;
  int64_t rows_ = 0;
  int64_t padded_rows_ = 0;
};

// What runs the batches of a queue. Must outlive the queue (see BatchLane::AddQueue).
class BatchRunner {
 public:
  virtual ~BatchRunner() = default;
  // Runs without any lock held; ends in exactly one BatchLane::Finish for the batch, on this stack or later on any
  // thread.
  virtual void Run(std::shared_ptr<Batch> batch) = 0;
  // Asks a batch that runs to end early, because every task in it was answered already. No lock held; may come after
  // Finish, and must not block.
  virtual void Cancel(Batch* batch) = 0;
  // Whether Run works on the thread that calls it (a CPU) or only starts something (an accelerator, remote calls).
  virtual bool occupies_thread() const = 0;
  // Whether a failure with this code may be one task's fault and running the others again does no harm. Runs under the
  // lane's lock, as a pure function of `code`.
  virtual bool may_bisect(Code code) const = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_TASK_H_
