// Which tasks run together on a device, when, and who is answered what.
//
// Pure: no threads, no clock, no lock. Every call is handed the time (nanoseconds of CLOCK_MONOTONIC that never
// decrease) and leaves in `Actions` what the caller must do afterwards, outside of its lock. A batch starts when the
// caller asks for the next one (Look, Start), so that whatever arrived until a thread was ready is in it.
//
// Order: the highest priority class first; among the groups of a class the one that had the least device time over its
// weight (fair queueing: a group that was idle has earned one batch at most, and waits for no more than one of the
// others); within a group parts of failed batches, then the queue of the most urgent task; within
// a queue the earliest deadline, then the order of arrival. A task without a deadline, and one that aged, moves ahead
// with time: nothing starves.
//
// What would end too late is answered before it costs anything: when it comes, and when the device is free for the next
// batch. So the tasks that are left fill the batches, however many come.
#ifndef TESSERA_CPP_EXT_BATCH_SCHEDULER_H_
#define TESSERA_CPP_EXT_BATCH_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/base/status.h"
#include "cpp_ext/batch/in_flight.h"
#include "cpp_ext/batch/policy.h"
#include "cpp_ext/batch/queue.h"
#include "cpp_ext/batch/stats.h"
#include "cpp_ext/batch/task.h"

namespace tessera {

class BatchScheduler {
 public:
  // A call of task->Done(status, batch, first_row).
  struct Answer {
    std::shared_ptr<BatchTask> task;
    Status status;
    std::shared_ptr<Batch> batch;
    int64_t first_row = 0;
  };
  // To be done, and to be destroyed, without any lock held.
  struct Actions {
    std::vector<Answer> answers;
    std::vector<std::shared_ptr<ScheduledBatch>> cancels;  // calls of queue->runner->Cancel
    std::vector<std::shared_ptr<void>> released;           // possibly the last references
  };
  // What may start now.
  struct Next {
    BatchQueue* queue = nullptr;  // null: nothing
    CloseReason reason = CloseReason::kIdle;
    const BatchTask* sole = nullptr;         // the only task that the batch can have
    int64_t event_ns = TESSERA_NO_DEADLINE;  // when the answer may be another one, or Expire has something to do
  };

  BatchScheduler(const LaneOptions& options, int64_t now_ns);

  Status SetPolicy(BatchGroup* group, BatchPolicy policy);
  void EnterLoop(BatchGroup* group) { ++group->stats.in_loop; }
  void LeaveLoop(BatchGroup* group) { --group->stats.in_loop; }

  // See BatchLane::Enqueue. Tasks that were cancelled before are left out.
  void Enqueue(const std::shared_ptr<BatchQueue>& queue, const std::shared_ptr<BatchTask>* tasks, size_t count,
               int64_t now_ns, Actions* actions);
  void Cancel(const std::shared_ptr<BatchTask>& task, Status status, Actions* actions);
  // Answers what is past its deadline.
  void Expire(int64_t now_ns, Actions* actions);
  void Finish(const std::shared_ptr<Batch>& batch, const Status& status, int64_t now_ns, Actions* actions);
  // Nothing waits for others any more.
  void Close() { closed_ = true; }

  // O(queues that wait) when there is a free slot, else O(groups that wait).
  Next Look(int64_t now_ns);
  // Makes the batch that Look found. REQUIRES: nothing came between. `brought`: it runs on the thread that brought it.
  std::shared_ptr<ScheduledBatch> Start(const Next& next, int64_t now_ns, bool brought);

  bool idle() const { return unanswered_ == 0 && in_flight_ == 0; }
  // Batches that may ever be in flight together.
  int64_t most_in_flight() const { return most_in_flight_; }
  LaneStats stats(int64_t now_ns) const;

 private:
  struct Ready {
    int64_t at_ns;
    CloseReason reason;
  };

  Status Admit(BatchQueue* queue, const std::shared_ptr<BatchTask>* tasks, size_t count, int64_t now_ns);
  Status CheckDeadline(const BatchQueue& queue, const BatchTask& task, int64_t rows, int64_t now_ns);
  // Predictions, see predict.cc. Nanoseconds until a batch of the queue, dispatched behind `rows_ahead` rows of it,
  // would begin to run, or kUnknown.
  int64_t ExpectedWaitNs(const BatchQueue& queue, int64_t rows_ahead, int64_t now_ns) const;
  // When the device would begin with a batch that starts now.
  int64_t BeginNs(int64_t now_ns) const;
  bool IsProven(const BatchQueue& queue, int64_t cost_ns, int64_t now_ns) const;
  void Predict(ScheduledBatch* batch, int64_t now_ns);
  void LearnFrom(ScheduledBatch* batch, bool ok, int64_t now_ns);
  // Answers what would be late in the batch that starts next.
  void DropLate(int64_t now_ns, Actions* actions);
  bool DropLate(BatchQueue* queue, int64_t now_ns, Actions* actions);
  void Push(const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<BatchTask> task, int64_t now_ns);
  // Takes a task out of wherever it is and answers it.
  void Drop(const std::shared_ptr<BatchTask>& task, Status status, Actions* actions);
  std::shared_ptr<BatchTask> RemoveQueued(BatchTask* task, Actions* actions);
  void Answered(BatchTask* task, BatchGroup* group);
  void Forget(const BatchTask& task);  // its deadline

  bool HasSlot(const BatchGroup& group) const;
  // Whether one batch for all requests in the loop beats a batch for each.
  bool PaysToGather(const BatchQueue& queue) const;
  Ready ReadyAt(BatchQueue* queue, int64_t now_ns) const;
  Next LookAt(BatchGroup* group, int64_t now_ns);
  std::shared_ptr<ScheduledBatch> Form(BatchQueue* queue, int64_t now_ns);
  void Activate(BatchGroup* group);
  void DeactivateIfIdle(BatchGroup* group);
  void Advance(int64_t now_ns);
  void Charge(ScheduledBatch* batch, int64_t now_ns);
  void End(const std::shared_ptr<ScheduledBatch>& batch, const Status& status, int64_t now_ns, Actions* actions);
  // Lets the next batch of the group wait for the callers that this one answers, if that is what the lane does now.
  void Linger(const ScheduledBatch& batch, int64_t now_ns);
  void Bisect(ScheduledBatch* batch, int64_t now_ns);
  void RelaxMemory(BatchGroup* group, int64_t now_ns);

  const LaneOptions options_;
  const int64_t since_ns_;
  InFlightLimit limit_;
  int64_t most_in_flight_;
  bool closed_ = false;
  uint64_t sequence_ = 0;
  int64_t unanswered_ = 0;
  int64_t in_flight_ = 0;
  std::vector<std::shared_ptr<ScheduledBatch>> flying_;  // those in flight, in the order in which they started
  Overlap overlap_;
  std::vector<BatchGroup*> active_;  // not idle; kept alive by their queues
  // The tasks that wait or run and have a deadline.
  std::map<std::pair<int64_t, uint64_t>, std::shared_ptr<BatchTask>> deadlines_;

  double virtual_ns_ = 0;  // the largest `served_ns` with which a group was served
  double quantum_ns_ = 0;  // the device time of a long batch
  int64_t advanced_ns_;    // when the two below were brought up to date
  int64_t busy_ns_ = 0;
  double served_ns_ = 0;  // device time of each batch in flight since the start: they share it equally
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_SCHEDULER_H_
