// One device, shared by all subgraphs that batch on it: the scheduler with its lock, its timer and its threads.
//
// A task that finds the device idle runs at once on the thread that brings it. Batches form from what arrives while the
// device is busy. Nothing polls: with no task there is no wake-up.
//
// The decisions are BatchScheduler's (scheduler.h): pure, no threads, time handed in.
#ifndef TESSERA_CPP_EXT_BATCH_LANE_H_
#define TESSERA_CPP_EXT_BATCH_LANE_H_

#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/status.h"
#include "cpp_ext/batch/policy.h"
#include "cpp_ext/batch/stats.h"
#include "cpp_ext/batch/task.h"

namespace tessera {

class BatchQueue;  // tasks that may share a batch: one subgraph, one version, one shape
class BatchGroup;  // the queues of one subgraph: their policy, bounds, statistics and, in a loop, its population

// Thread-safe. No method blocks, but those that say so.
class BatchLane {
 public:
  BatchLane(std::string name, LaneOptions options);
  // Blocks until every task has been answered and every batch has ended. REQUIRES: not on a thread of the lane.
  ~BatchLane();
  BatchLane(const BatchLane&) = delete;
  BatchLane& operator=(const BatchLane&) = delete;

  // `name` is for messages ("model:version/subgraph"). INVALID_ARGUMENT: the policy. The group ends with its last user.
  std::shared_ptr<BatchGroup> AddGroup(std::string name, bool in_loop);
  Status SetPolicy(BatchGroup& group, BatchPolicy policy);
  BatchGroupStats stats(const BatchGroup& group) const;

  // `runner` is kept until the queue's last batch has ended. Drop the queue when no task will come any more; tasks
  // in it still run.
  std::shared_ptr<BatchQueue> AddQueue(const std::shared_ptr<BatchGroup>& group, std::shared_ptr<BatchRunner> runner);

  // Every task ends in its Done: at once with UNAVAILABLE or RESOURCE_EXHAUSTED when the rows or bytes waiting are at
  // their bound, INVALID_ARGUMENT when it is larger than a batch, DEADLINE_EXCEEDED when its time is up. `tasks` are
  // admitted all or not at all (the pieces of one large input).
  void Enqueue(const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<BatchTask> task);
  void Enqueue(const std::shared_ptr<BatchQueue>& queue, std::vector<std::shared_ptr<BatchTask>> tasks);
  // Answers the task with `status` now, unless it was answered. Its batch goes on while others are in it.
  void Cancel(const std::shared_ptr<BatchTask>& task, Status status);
  // The end of a batch; see BatchRunner.
  void Finish(const std::shared_ptr<Batch>& batch, Status status);

  // A request is inside the loop around the group's subgraph: as long as all of them wait or run, a batch need not
  // wait for more. Calls pair up.
  void EnterLoop(BatchGroup& group);
  void LeaveLoop(BatchGroup& group);

  // A thread that has several requests at hand brings their tasks between these two: a task that could run at once on
  // it waits for EndBurst, so that those that follow can share its batch. Do not nest. REQUIRES: the lanes whose tasks
  // were brought outlive EndBurst.
  static void BeginBurst();
  // Whether a task waits for EndBurst, and not for longer than is worth it.
  static bool BurstPending();
  static void EndBurst();

  LaneStats stats() const;
  const std::string& name() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_LANE_H_
