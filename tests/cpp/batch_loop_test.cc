// Subgraphs in a loop: a batch waits for the requests that are in it.
#include <gtest/gtest.h>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = SteppedScheduler::kMicro, kMilli = SteppedScheduler::kMilli;

TEST(BatchLoop, InALoopWaitsForAllThatAreInIt) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  s.Teach(queue, 2, 400 * kMicro);
  for (int i = 0; i < 3; ++i) s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  EXPECT_EQ(s.NextEventNs(), 100 * kMicro);  // a quarter of what the cell takes
  s.Enqueue(queue);
  auto batch = s.Start();
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kAllInLoop);
  EXPECT_EQ(batch->rows(), 3);
}

TEST(BatchLoop, RequestsRunSideBySideWhenTheirBatchWouldCostMore) {
  LaneOptions adaptive;  // begins with one in flight
  SteppedScheduler s(adaptive);
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  s.Teach(queue, 1, 100 * kMicro);
  s.Teach(queue, 2, 190 * kMicro);  // two cores do two in 100
  for (int i = 0; i < 2; ++i) s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  ASSERT_NE(s.Start(), nullptr);
  s.Enqueue(queue);
  EXPECT_NE(s.Start(), nullptr);
}

TEST(BatchLoop, RequestsWaitForEachOtherWhereBatchesDoNotRunSideBySide) {  // a serial device, or a single core
  LaneOptions two;
  two.max_in_flight_batches = 2;
  SteppedScheduler s(two);
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  s.Teach(queue, 1, 100 * kMicro);
  s.Teach(queue, 2, 150 * kMicro);
  for (int i = 0; i < 2; ++i) s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  auto first = s.Start();
  s.Enqueue(queue);
  auto second = s.Start();
  ASSERT_TRUE(first != nullptr && second != nullptr);
  s.now_ns += 100 * kMicro;
  s.Finish(first);
  s.now_ns += 100 * kMicro;  // the second one has waited for the first
  s.Finish(second);
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.Enqueue(queue);
  EXPECT_EQ(s.Start()->rows(), 2);
}

TEST(BatchLoop, RequestsWaitForEachOtherWhenTheirBatchCostsLess) {
  LaneOptions adaptive;
  SteppedScheduler s(adaptive);
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  s.Teach(queue, 1, 100 * kMicro);
  s.Teach(queue, 8, 200 * kMicro);
  for (int i = 0; i < 8; ++i) s.scheduler.EnterLoop(queue->group.get());
  for (int i = 0; i < 7; ++i) s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.Enqueue(queue);
  auto batch = s.Start();
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(batch->rows(), 8);
}

TEST(BatchLoop, InALoopRunningTasksNeedNotBeWaitedFor) {
  LaneOptions two;
  two.max_in_flight_batches = 2;
  SteppedScheduler s(two);
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  for (int i = 0; i < 3; ++i) s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  s.now_ns = kMilli;
  ASSERT_NE(s.Start(), nullptr);
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.Enqueue(queue);
  EXPECT_EQ(s.Start()->rows(), 2);
}

TEST(BatchLoop, InALoopAloneRunsAtOnce) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, kMilli), /*in_loop=*/true);
  s.scheduler.EnterLoop(queue->group.get());
  for (int step = 0; step < 10; ++step) {
    s.Enqueue(queue);
    ASSERT_NE(s.Run(50 * kMicro), nullptr);
    EXPECT_EQ(s.last_reason, CloseReason::kAllInLoop);
  }
}

TEST(BatchLoop, ARequestThatDiesInsideTheLoopIsNotWaitedFor) {  // pitfall 28
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64), /*in_loop=*/true);
  s.scheduler.EnterLoop(queue->group.get());
  s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.scheduler.LeaveLoop(queue->group.get());
  EXPECT_NE(s.Start(), nullptr);
}

TEST(BatchLoop, TheWaitInALoopIsBounded) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 50 * kMicro), /*in_loop=*/true);
  for (int i = 0; i < 3; ++i) s.scheduler.EnterLoop(queue->group.get());
  s.Enqueue(queue);
  EXPECT_EQ(s.NextEventNs(), 20 * kMicro);  // the cost is not known
  s.now_ns = 20 * kMicro;
  s.Run(1);
  s.Teach(queue, 1, kMilli);
  s.Enqueue(queue);
  EXPECT_EQ(s.NextEventNs(), s.now_ns + 50 * kMicro);  // the policy's timeout is shorter than a quarter
}

}  // namespace
}  // namespace tessera
