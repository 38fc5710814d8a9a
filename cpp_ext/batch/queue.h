// What waits in a lane: the groups, their queues, and the batches made of them. Private to the scheduler; everything
// here is guarded by the lane's lock.
#ifndef TESSERA_CPP_EXT_BATCH_QUEUE_H_
#define TESSERA_CPP_EXT_BATCH_QUEUE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpp_ext/batch/cost_model.h"
#include "cpp_ext/batch/policy.h"
#include "cpp_ext/batch/stats.h"
#include "cpp_ext/batch/task.h"

namespace tessera {

class ScheduledBatch;

// What is served first: the smaller one.
struct Urgency {
  int32_t priority = 0;
  int64_t at_ns = 0;
  uint64_t sequence = 0;

  bool operator<(const Urgency& other) const {
    return std::tie(priority, at_ns, sequence) < std::tie(other.priority, other.at_ns, other.sequence);
  }
};

// The queues of one subgraph.
class BatchGroup {
 public:
  BatchGroup(std::string name, bool in_loop) : name(std::move(name)), in_loop(in_loop) {}

  const std::string name;
  const bool in_loop;
  BatchPolicy policy;
  // The largest max_batch_size there was: callers may have cut their rows by an earlier policy. Such a task runs alone.
  int64_t most_rows = 0;
  BatchGroupStats stats;

  std::vector<std::shared_ptr<BatchQueue>> waiting;     // the queues with tasks; keeps them alive
  std::deque<std::shared_ptr<ScheduledBatch>> retries;  // parts of failed batches, to run before anything else
  int64_t unanswered = 0;                               // tasks that wait or run
  int64_t in_flight = 0;                                // batches
  double served_ns = 0;                                 // device time over weight: the group with least is next

  bool fresh = false;  // not served since it was idle

  // Until when tasks wait while fewer than `callers` are unanswered: those that a batch has answered may come back.
  int64_t linger_until_ns = 0;
  int64_t callers = 0;

  // Rows of a batch that memory allows, learned from RESOURCE_EXHAUSTED; 0: no limit.
  int64_t memory_rows = 0;
  int64_t memory_until_ns = 0;

  bool idle() const { return waiting.empty() && retries.empty(); }
  // Rows of the next batch at most.
  int64_t MaxRows() const;
};

// The tasks that may share a batch. Kept alive by its users, by `waiting` while tasks wait, and by its batches.
class BatchQueue {
 public:
  BatchQueue(std::shared_ptr<BatchGroup> group, std::shared_ptr<BatchRunner> runner)
      : group(std::move(group)), runner(std::move(runner)), occupies_thread(this->runner->occupies_thread()) {}

  const std::shared_ptr<BatchGroup> group;
  const std::shared_ptr<BatchRunner> runner;
  const bool occupies_thread;
  CostModel cost;
  PredictionError error;
  int64_t proven_ns = INT64_MIN / 2;  // when a batch last started or ended: long ago, and `cost` may be out of date

  using Tasks = std::map<Urgency, std::shared_ptr<BatchTask>>;  // most urgent first
  const Tasks& tasks() const { return tasks_; }
  bool empty() const { return tasks_.empty(); }
  int64_t rows() const { return rows_; }
  int64_t oldest_ns() const { return oldest_->enqueued_ns_; }  // REQUIRES: !empty()
  int64_t EarliestDeadlineNs();                                // of all that wait, or TESSERA_NO_DEADLINE

  static Urgency UrgencyOf(const BatchTask& task) { return {task.class_, task.urgency_ns_, task.sequence_}; }
  // REQUIRES: `task` has its class, urgency, sequence and time of arrival, not before that of any other here.
  void Push(std::shared_ptr<BatchTask> task);
  std::shared_ptr<BatchTask> Remove(BatchTask* task);
  // Tasks that arrived at `until_ns` or before count as class 0 from now on. O(1) but for those that change.
  void Age(int64_t until_ns);
  // Gives the tasks whose class is not their own the policy's.
  void Reclassify();

 private:
  void Reorder(BatchTask* task, int32_t to_class);

  Tasks tasks_;
  int64_t rows_ = 0;
  BatchTask* oldest_ = nullptr;  // the list in order of arrival
  BatchTask* newest_ = nullptr;
  BatchTask* young_ = nullptr;  // the oldest one that Age has not seen
  int64_t deadline_ns_ = TESSERA_NO_DEADLINE;
  bool deadline_known_ = true;  // else deadline_ns_ may belong to a task that has left
};

class ScheduledBatch final : public Batch, public std::enable_shared_from_this<ScheduledBatch> {
 public:
  using Batch::padded_rows_;
  using Batch::rows_;
  using Batch::tasks_;

  std::shared_ptr<BatchQueue> queue;
  size_t unanswered = 0;
  bool in_flight = false;
  int64_t started_ns = 0;
  int64_t predicted_ns = CostModel::kUnknown;  // if it ran alone
  int64_t predicted_end_ns = 0;                // when it started
  int64_t end_ns = 0;                          // expected by now, if `predicted_ns` is known
  int64_t ahead_ended_ns = 0;                  // when the last of those that were in flight before it ended
  double lane_served_ns = 0;                   // the lane's device time per batch when this one started
};

// The smallest allowed size that holds `rows`; `rows` itself when every size is allowed or none is large enough.
int64_t PaddedRows(const BatchPolicy& policy, int64_t rows);

struct Selection {
  size_t tasks = 0;
  int64_t rows = 0;
  int64_t padded_rows = 0;
};
// The most urgent tasks of `queue` that make its next batch: as many as fit, fewer if the policy's padding says so, or
// if one batch could hold all that wait but would end too late for one of them. The device is free for the batch at
// `begin_ns`. At least one, even if it is larger than a batch may be now (the policy changed since it came). REQUIRES:
// not empty.
Selection SelectTasks(const BatchQueue& queue, int64_t begin_ns);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_QUEUE_H_
