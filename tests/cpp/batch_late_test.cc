// Tasks that would be late: who is answered before it costs anything, and who may try.
#include <gtest/gtest.h>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMilli = SteppedScheduler::kMilli;

// A queue whose batches of two take 10 ms, and one of them in flight.
struct Busy {
  Busy() {
    BatchPolicy policy;
    policy.max_batch_size = 2;
    queue = s.Queue(policy);
    s.Enqueue(queue);
    s.Run(0);
    s.Teach(queue, 2, 10 * kMilli);
    s.Enqueue(queue, 2);
    batch = s.Start();
  }
  std::shared_ptr<FakeTask> Enqueue(int64_t deadline_ms) {
    auto task = MakeTask();
    task->deadline_ns = deadline_ms * kMilli;
    return s.Enqueue(queue, task);
  }

  SteppedScheduler s;
  std::shared_ptr<BatchQueue> queue;
  std::shared_ptr<ScheduledBatch> batch;
};

TEST(BatchLate, ALateTaskGivesItsPlaceToOneThatMakesIt) {
  Busy busy;
  auto late = busy.Enqueue(18), first = busy.Enqueue(30), second = busy.Enqueue(31);
  EXPECT_EQ(late->answers, 0);
  busy.s.now_ns = 10 * kMilli;
  busy.s.Finish(busy.batch);
  EXPECT_EQ(late->code, Code::kDeadlineExceeded);
  EXPECT_EQ(late->message, "m:1/g: the task would end 2500 microseconds after its deadline");
  EXPECT_EQ(busy.queue->group->stats.expired_queued, 1u);
  EXPECT_EQ(busy.queue->group->stats.enqueued_rows, 2);
  EXPECT_EQ(busy.s.Start()->tasks(), (std::vector<std::shared_ptr<BatchTask>>{first, second}));
}

TEST(BatchLate, WhereNobodyWantsThePlaceALateTaskMayTry) {
  Busy busy;
  auto task = busy.Enqueue(18);
  busy.s.now_ns = 10 * kMilli;
  busy.s.Finish(busy.batch);
  EXPECT_EQ(task->answers, 0);
  EXPECT_EQ(busy.s.Run(7 * kMilli)->rows(), 1);
  EXPECT_EQ(task->code, Code::kOk);
}

TEST(BatchLate, ABatchIsSmallerIfThatMakesItsMostUrgentTaskTimely) {
  SteppedScheduler s;
  auto queue = s.Queue();
  s.Teach(queue, 1, 5 * kMilli);
  queue->cost.Learn(2, 9 * kMilli);
  auto urgent = MakeTask();
  urgent->deadline_ns = 8 * kMilli;
  s.Enqueue(queue);
  s.Enqueue(queue, urgent);
  EXPECT_EQ(s.Run(5 * kMilli)->tasks(), (std::vector<std::shared_ptr<BatchTask>>{urgent}));
  EXPECT_EQ(urgent->code, Code::kOk);
  EXPECT_EQ(s.Run(1)->rows(), 1);
}

TEST(BatchLate, WhatWasNotConfirmedForLongIsNoReasonToRefuse) {
  Busy busy;
  busy.s.now_ns = 10 * kMilli;
  busy.s.Finish(busy.batch);
  auto refused = busy.Enqueue(12);
  EXPECT_EQ(refused->code, Code::kDeadlineExceeded);
  busy.s.now_ns = 300 * kMilli;
  EXPECT_EQ(busy.Enqueue(302)->answers, 0);
  EXPECT_NE(busy.s.Start(), nullptr);
  EXPECT_EQ(busy.Enqueue(302)->code, Code::kDeadlineExceeded);  // one that tries is enough
}

}  // namespace
}  // namespace tessera
