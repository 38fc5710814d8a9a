// Tasks and runners for tests of the batch scheduler and the lane.
#ifndef TESSERA_TESTS_CPP_BATCH_FAKES_H_
#define TESSERA_TESTS_CPP_BATCH_FAKES_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/batch/lane.h"
#include "cpp_ext/batch/policy.h"
#include "cpp_ext/batch/scheduler.h"
#include "cpp_ext/batch/task.h"

namespace tessera {

class FakeTask final : public BatchTask {
 public:
  FakeTask() = default;
  explicit FakeTask(int64_t rows) { this->rows = rows; }

  void Done(const Status& status, Batch* batch, int64_t row) override {
    code = status.code();
    message = status.message();
    first_row = row;
    ended_ns = MonotonicNs();
    ended_on = std::this_thread::get_id();
    answers.fetch_add(1);
    if (then) then();
  }

  // Written by Done before `answers` counts it.
  Code code = Code::kUnknown;
  std::string message;
  int64_t first_row = -1;
  int64_t ended_ns = 0;
  std::thread::id ended_on;
  std::atomic<int> answers{0};
  std::function<void()> then;  // runs in Done
};

inline BatchPolicy Policy(int64_t max_batch_size, int64_t batch_timeout_ns = 0) {
  BatchPolicy policy;
  policy.max_batch_size = max_batch_size;
  policy.batch_timeout_ns = batch_timeout_ns;
  return policy;
}

inline std::shared_ptr<FakeTask> MakeTask(int64_t rows = 1) { return std::make_shared<FakeTask>(rows); }

// Runs `body` and ends the batch with what it returns, on the stack of Run.
class InlineRunner final : public BatchRunner {
 public:
  using Body = std::function<Status(const Batch&)>;
  InlineRunner(BatchLane* lane, bool occupies_thread, Body body = nullptr)
      : lane_(lane), occupies_thread_(occupies_thread), body_(std::move(body)) {}

  void Run(std::shared_ptr<Batch> batch) override {
    runs.fetch_add(1);
    last_thread = std::this_thread::get_id();
    lane_->Finish(batch, body_ ? body_(*batch) : Status());
  }
  void Cancel(Batch* batch) override { cancels.fetch_add(1); }
  bool occupies_thread() const override { return occupies_thread_; }
  bool may_bisect(Code code) const override { return code == Code::kInvalidArgument; }

  std::atomic<int> runs{0};
  std::atomic<int> cancels{0};
  std::atomic<std::thread::id> last_thread{};

 private:
  BatchLane* const lane_;
  const bool occupies_thread_;
  const Body body_;
};

inline void SleepNs(int64_t ns) { std::this_thread::sleep_for(std::chrono::nanoseconds(ns)); }

// Waits until `done` holds, for at most ten seconds.
template <typename Condition>
void Await(Condition done) {
  for (int i = 0; i < 100'000 && !done(); ++i) SleepNs(100'000);
  ASSERT_TRUE(done());
}

// Ends batches when the test says so, on the test's thread.
class HeldRunner final : public BatchRunner {
 public:
  explicit HeldRunner(bool occupies_thread = false) : occupies_thread_(occupies_thread) {}
  void Run(std::shared_ptr<Batch> batch) override {
    std::lock_guard<std::mutex> lock(mu_);
    batches_.push_back(std::move(batch));
    thread = std::this_thread::get_id();
  }
  void Cancel(Batch* batch) override { cancels.fetch_add(1); }
  bool occupies_thread() const override { return occupies_thread_; }
  bool may_bisect(Code code) const override { return code == Code::kInvalidArgument; }

  size_t held() {
    std::lock_guard<std::mutex> lock(mu_);
    return batches_.size();
  }
  std::shared_ptr<Batch> Take() {
    std::lock_guard<std::mutex> lock(mu_);
    std::shared_ptr<Batch> batch = std::move(batches_.front());
    batches_.erase(batches_.begin());
    return batch;
  }

  std::atomic<int> cancels{0};
  std::atomic<std::thread::id> thread{};

 private:
  const bool occupies_thread_;
  std::mutex mu_;
  std::vector<std::shared_ptr<Batch>> batches_;
};

// Makes the queue's cost known to be what a batch of one takes.
inline void Warm(BatchLane* lane, const std::shared_ptr<BatchQueue>& queue) {
  for (int i = 0; i < 4; ++i) {
    auto task = MakeTask();
    lane->Enqueue(queue, task);
    Await([&] { return task->answers == 1; });
  }
}

// Only says what it is; the test runs the batches.
class SteppedRunner final : public BatchRunner {
 public:
  void Run(std::shared_ptr<Batch> batch) override {}
  void Cancel(Batch* batch) override { cancelled.push_back(batch); }
  bool occupies_thread() const override { return true; }
  bool may_bisect(Code code) const override { return code == Code::kInvalidArgument; }

  std::vector<Batch*> cancelled;
};

// A scheduler and a clock that the test moves.
class SteppedScheduler {
 public:
  static constexpr int64_t kMicro = 1'000, kMilli = 1'000'000, kSecond = 1'000'000'000;

  explicit SteppedScheduler(LaneOptions options = OneInFlight()) : scheduler(options, 0) {}

  // What still waits keeps its queue, which keeps its group, which keeps the queue.
  ~SteppedScheduler() {
    for (const auto& queue : queues_) {
      const auto waiting = std::move(queue->group->waiting);
      const auto retries = std::move(queue->group->retries);
    }
  }

  static LaneOptions OneInFlight() {
    LaneOptions options;
    options.max_in_flight_batches = 1;
    return options;
  }

  std::shared_ptr<BatchQueue> Queue(const std::shared_ptr<BatchGroup>& group) {
    queues_.push_back(std::make_shared<BatchQueue>(group, runner));
    return queues_.back();
  }
  // A queue in a group of its own.
  std::shared_ptr<BatchQueue> Queue(const BatchPolicy& policy = {}, bool in_loop = false) {
    auto group = std::make_shared<BatchGroup>("m:1/g", in_loop);
    SetPolicy(group, policy);
    return Queue(group);
  }
  void SetPolicy(const std::shared_ptr<BatchGroup>& group, const BatchPolicy& policy) {
    const Status status = scheduler.SetPolicy(group.get(), policy);
    EXPECT_TRUE(status.ok()) << status.message();
  }

  std::shared_ptr<FakeTask> Enqueue(const std::shared_ptr<BatchQueue>& queue, std::shared_ptr<FakeTask> task) {
    EnqueueAll(queue, {task});
    return task;
  }
  std::shared_ptr<FakeTask> Enqueue(const std::shared_ptr<BatchQueue>& queue, int64_t rows = 1) {
    return Enqueue(queue, MakeTask(rows));
  }
  void EnqueueAll(const std::shared_ptr<BatchQueue>& queue, std::vector<std::shared_ptr<BatchTask>> tasks) {
    BatchScheduler::Actions actions;
    scheduler.Enqueue(queue, tasks.data(), tasks.size(), now_ns, &actions);
    Act(&actions);
  }
  void Cancel(const std::shared_ptr<BatchTask>& task) {
    BatchScheduler::Actions actions;
    scheduler.Cancel(task, Status(Code::kCancelled, "gone"), &actions);
    Act(&actions);
  }
  void Expire() {
    BatchScheduler::Actions actions;
    scheduler.Expire(now_ns, &actions);
    Act(&actions);
  }
  // The batch that starts now, or null.
  std::shared_ptr<ScheduledBatch> Start() {
    const BatchScheduler::Next next = scheduler.Look(now_ns);
    last_reason = next.reason;
    if (next.queue == nullptr) return nullptr;
    return scheduler.Start(next, now_ns, false);
  }
  void Finish(const std::shared_ptr<Batch>& batch, Status status = Status()) {
    BatchScheduler::Actions actions;
    scheduler.Finish(batch, status, now_ns, &actions);
    Act(&actions);
  }
  // Starts a batch, lets it take `ns`, ends it.
  std::shared_ptr<ScheduledBatch> Run(int64_t ns, Status status = Status()) {
    auto batch = Start();
    if (batch == nullptr) return nullptr;
    now_ns += ns;
    Finish(batch, std::move(status));
    return batch;
  }
  // Makes it known that a batch of `rows` takes `ns`. REQUIRES: an empty queue of a group with nothing else to do.
  void Teach(const std::shared_ptr<BatchQueue>& queue, int64_t rows, int64_t ns) {
    queue->cost.Learn(rows, ns);  // the cold one
    queue->cost.Learn(rows, ns);
  }
  int64_t NextEventNs() { return scheduler.Look(now_ns).event_ns; }

  std::shared_ptr<SteppedRunner> runner = std::make_shared<SteppedRunner>();
  BatchScheduler scheduler;
  int64_t now_ns = 0;
  CloseReason last_reason = CloseReason::kCount;

 private:
  static void Act(BatchScheduler::Actions* actions) {
    for (const auto& batch : actions->cancels) batch->queue->runner->Cancel(batch.get());
    for (auto& answer : actions->answers) answer.task->Done(answer.status, answer.batch.get(), answer.first_row);
  }

  std::vector<std::shared_ptr<BatchQueue>> queues_;
};

inline Status Bad() { return Status(Code::kInvalidArgument, "bad row"); }

}  // namespace tessera

#endif  // TESSERA_TESTS_CPP_BATCH_FAKES_H_
