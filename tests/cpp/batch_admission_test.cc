// What is refused, what is answered before its batch ends, and that it happens once.
#include <gtest/gtest.h>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMilli = SteppedScheduler::kMilli;

std::shared_ptr<FakeTask> WithDeadline(int64_t deadline_ns, int64_t rows = 1) {
  auto task = MakeTask(rows);
  task->deadline_ns = deadline_ns;
  return task;
}

TEST(BatchAdmission, ATaskLargerThanABatchIsRefused) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto task = s.Enqueue(queue, 65);
  EXPECT_EQ(task->code, Code::kInvalidArgument);
  EXPECT_EQ(task->message, "m:1/g: a task has 65 rows, expected 1 to max_batch_size, which is 64");
  EXPECT_EQ(s.Enqueue(queue, 0)->code, Code::kInvalidArgument);
  EXPECT_EQ(queue->group->stats.rejected_too_large, 2u);
}

TEST(BatchAdmission, TheBoundOnRowsIsUnavailable) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_enqueued_rows = 10;
  auto queue = s.Queue(policy);
  s.Enqueue(queue);
  auto running = s.Start();
  s.Enqueue(queue, 8);
  auto refused = s.Enqueue(queue, 3);
  EXPECT_EQ(refused->code, Code::kUnavailable);
  EXPECT_EQ(refused->message,
            "The batch scheduling queue to which this task was submitted is full; m:1/g: 8 rows wait, the input has 3, "
            "max_enqueued_rows is 10; expected wait not known yet");
  EXPECT_EQ(s.Enqueue(queue, 2)->answers, 0);
  EXPECT_EQ(queue->group->stats.rejected_rows_bound, 1u);
  EXPECT_EQ(queue->group->stats.enqueued_rows, 10);
  s.Finish(running);
  s.Run(1);
  EXPECT_EQ(queue->group->stats.enqueued_rows, 0);
}

TEST(BatchAdmission, TheBoundHoldsForAllQueuesOfAGroup) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_enqueued_rows = 3;
  auto first = s.Queue(policy);
  auto second = s.Queue(first->group);
  s.Enqueue(first, 2);
  EXPECT_EQ(s.Enqueue(second, 2)->code, Code::kUnavailable);
}

TEST(BatchAdmission, TheBoundOnBytesIsResourceExhausted) {  // pitfall 32
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_enqueued_bytes = 100;
  auto queue = s.Queue(policy);
  auto large = MakeTask();
  large->bytes = 1000;  // alone it must run, whatever the bound
  EXPECT_EQ(s.Enqueue(queue, large)->answers, 0);
  auto next = MakeTask();
  next->bytes = 1;
  EXPECT_EQ(s.Enqueue(queue, next)->code, Code::kResourceExhausted);
  EXPECT_EQ(next->message,
            "The batch scheduling queue of m:1/g holds too many bytes: 1000 wait, the input has 1, max_enqueued_bytes "
            "is 100; expected wait not known yet");
  s.Run(1);
  EXPECT_EQ(queue->group->stats.enqueued_bytes, 0);
}

TEST(BatchAdmission, TheMessageTellsTheExpectedWait) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_batch_size = 2;
  policy.max_enqueued_rows = 4;
  auto queue = s.Queue(policy);
  s.Teach(queue, 2, 3 * kMilli);
  for (int i = 0; i < 4; ++i) s.Enqueue(queue);
  const std::string message = s.Enqueue(queue)->message;
  EXPECT_NE(message.find("expected wait 6000 microseconds"), std::string::npos) << message;
}

TEST(BatchAdmission, PiecesAreAdmittedAllOrNone) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_batch_size = 4;
  policy.max_enqueued_rows = 10;
  auto queue = s.Queue(policy);
  auto waiting = s.Enqueue(queue, 4);
  std::vector<std::shared_ptr<BatchTask>> pieces = {MakeTask(4), MakeTask(4)};
  s.EnqueueAll(queue, pieces);
  for (const auto& piece : pieces) EXPECT_EQ(static_cast<FakeTask&>(*piece).code, Code::kUnavailable);
  s.Run(1);
  EXPECT_EQ(waiting->code, Code::kOk);
  // An input beyond the bound is admitted when nothing waits: else it could never run.
  pieces = {MakeTask(4), MakeTask(4), MakeTask(4)};
  s.EnqueueAll(queue, pieces);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(s.Run(1)->rows(), 4);
  for (const auto& piece : pieces) EXPECT_EQ(static_cast<FakeTask&>(*piece).code, Code::kOk);
}

TEST(BatchAdmission, AQueuedTaskThatIsCancelledFreesItsPlace) {
  SteppedScheduler s;
  auto queue = s.Queue();
  s.Enqueue(queue);
  auto batch = s.Start();
  auto task = s.Enqueue(queue, 5);
  s.Cancel(task);
  EXPECT_EQ(task->code, Code::kCancelled);
  EXPECT_EQ(queue->group->stats.enqueued_rows, 0);
  EXPECT_EQ(queue->group->stats.cancelled, 1u);
  s.Finish(batch);
  EXPECT_EQ(s.Start(), nullptr);
  s.Cancel(task);
  EXPECT_EQ(task->answers, 1);
}

TEST(BatchAdmission, ACancelledTaskIsAnsweredWhileItsBatchGoesOn) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto a = s.Enqueue(queue, 2), b = s.Enqueue(queue, 1);
  auto batch = s.Start();
  s.Cancel(a);
  EXPECT_EQ(a->code, Code::kCancelled);
  EXPECT_EQ(b->answers, 0);
  EXPECT_TRUE(s.runner->cancelled.empty());
  EXPECT_EQ(batch->tasks().size(), 2u);
  s.Finish(batch);
  EXPECT_EQ(a->answers, 1);
  EXPECT_EQ(b->code, Code::kOk);
  EXPECT_EQ(b->first_row, 2);
}

TEST(BatchAdmission, ABatchWithoutMembersIsCancelled) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto a = s.Enqueue(queue), b = s.Enqueue(queue, WithDeadline(kMilli));
  auto batch = s.Start();
  s.Cancel(a);
  s.now_ns = kMilli;
  s.Expire();
  EXPECT_EQ(s.runner->cancelled, std::vector<Batch*>{batch.get()});
  EXPECT_FALSE(s.scheduler.idle());
  s.Finish(batch, Status(Code::kCancelled, "as asked"));
  EXPECT_EQ(queue->group->stats.failed_batches, 0u);
  EXPECT_EQ(a->answers, 1);
  EXPECT_EQ(b->code, Code::kDeadlineExceeded);
  EXPECT_EQ(b->answers, 1);
  EXPECT_TRUE(s.scheduler.idle());
}

TEST(BatchAdmission, ATaskMayBeCancelledBeforeItIsEnqueued) {  // race 15
  SteppedScheduler s;
  auto queue = s.Queue();
  auto task = MakeTask(), other = MakeTask();
  s.Cancel(task);
  s.EnqueueAll(queue, {task, other});
  EXPECT_EQ(s.Run(1)->rows(), 1);
  EXPECT_EQ(task->answers, 1);
  EXPECT_EQ(task->code, Code::kCancelled);
  EXPECT_EQ(other->code, Code::kOk);
}

TEST(BatchAdmission, CancelDeadlineAndEndInAnyOrderAnswerOnce) {  // race 13
  std::vector<int> order = {0, 1, 2};
  do {
    SteppedScheduler s;
    auto queue = s.Queue();
    auto task = s.Enqueue(queue, WithDeadline(kMilli));
    auto batch = s.Start();
    s.now_ns = kMilli;
    for (const int event : order) {
      if (event == 0) s.Cancel(task);
      if (event == 1) s.Expire();
      if (event == 2) s.Finish(batch);
    }
    EXPECT_EQ(task->answers, 1);
    const Code expected[] = {Code::kCancelled, Code::kDeadlineExceeded, Code::kOk};
    EXPECT_EQ(task->code, expected[order[0]]);
    EXPECT_TRUE(s.scheduler.idle());
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(BatchAdmission, AQueuedTaskExpiresAtItsDeadline) {
  SteppedScheduler s;
  auto queue = s.Queue();
  s.Enqueue(queue);
  auto batch = s.Start();
  auto task = s.Enqueue(queue, WithDeadline(5 * kMilli));
  EXPECT_EQ(s.NextEventNs(), 5 * kMilli);
  s.now_ns = 5 * kMilli - 1;
  s.Expire();
  EXPECT_EQ(task->answers, 0);
  s.now_ns = 5 * kMilli;
  s.Expire();
  EXPECT_EQ(task->code, Code::kDeadlineExceeded);
  EXPECT_EQ(task->message, "m:1/g: the deadline passed while the task waited to run");
  EXPECT_EQ(queue->group->stats.expired_queued, 1u);
  EXPECT_EQ(queue->group->stats.enqueued_rows, 0);
  s.Finish(batch);
  EXPECT_EQ(s.Start(), nullptr);  // it costs nothing
}

TEST(BatchAdmission, APassedDeadlineIsRefused) {
  SteppedScheduler s;
  auto queue = s.Queue();
  s.now_ns = 10;
  EXPECT_EQ(s.Enqueue(queue, WithDeadline(10))->code, Code::kDeadlineExceeded);
  EXPECT_EQ(s.Start(), nullptr);
}

TEST(BatchAdmission, WhatCannotMakeItsDeadlineIsRefused) {
  SteppedScheduler s;
  BatchPolicy policy;
  policy.max_batch_size = 1;
  auto queue = s.Queue(policy);
  // Nothing is known of the cost: nothing is refused.
  EXPECT_EQ(s.Enqueue(queue, WithDeadline(1))->answers, 0);
  s.Run(0);
  s.Teach(queue, 1, 10 * kMilli);
  EXPECT_EQ(s.Enqueue(queue, WithDeadline(6 * kMilli))->code, Code::kDeadlineExceeded);
  EXPECT_EQ(s.Enqueue(queue, WithDeadline(8 * kMilli))->answers, 0);  // a prediction may be wrong by a third
  for (int i = 0; i < 9; ++i) s.Enqueue(queue, WithDeadline(500 * kMilli));
  auto late = s.Enqueue(queue, WithDeadline(600 * kMilli));
  EXPECT_EQ(late->answers, 0);
  // Eleven are before it, if it is the last …
  EXPECT_EQ(s.Enqueue(queue, WithDeadline(40 * kMilli))->answers, 0);  // … but this one is the second
  BatchPolicy background = policy;
  background.priority = 1;
  s.SetPolicy(queue->group, background);
  auto last = WithDeadline(60 * kMilli);
  last->priority = 2;
  EXPECT_EQ(s.Enqueue(queue, last)->code, Code::kDeadlineExceeded);
  EXPECT_EQ(queue->group->stats.expired_queued, 2u);
}

}  // namespace
}  // namespace tessera
