// When a batch starts, and which tasks are in it.
#include <gtest/gtest.h>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = SteppedScheduler::kMicro, kMilli = SteppedScheduler::kMilli;

TEST(BatchDispatch, AnIdleDeviceRunsATaskAtOnce) {
  SteppedScheduler s;
  auto queue = s.Queue();
  auto task = s.Enqueue(queue, 3);
  auto batch = s.Start();
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kIdle);
  EXPECT_EQ(batch->rows(), 3);
  EXPECT_EQ(batch->padded_rows(), 3);
  EXPECT_EQ(task->answers, 0);
  s.Finish(batch);
  EXPECT_EQ(task->answers, 1);
  EXPECT_EQ(task->code, Code::kOk);
  EXPECT_TRUE(s.scheduler.idle());
}

TEST(BatchDispatch, WhatArrivesWhileTheDeviceIsBusyFormsTheNextBatch) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(4));
  s.Enqueue(queue);
  auto first = s.Start();
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int64_t rows : {1, 2, 1, 3}) tasks.push_back(s.Enqueue(queue, rows));
  EXPECT_EQ(s.Start(), nullptr);
  s.Finish(first);
  auto second = s.Start();
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kFull);
  EXPECT_EQ(second->rows(), 4);
  s.Finish(second);
  EXPECT_EQ(tasks[0]->first_row, 0);
  EXPECT_EQ(tasks[1]->first_row, 1);
  EXPECT_EQ(tasks[2]->first_row, 3);
  EXPECT_EQ(tasks[3]->answers, 0);
  EXPECT_EQ(s.Run(1)->rows(), 3);
}

TEST(BatchDispatch, ATaskWaitsForOthersUpToTheTimeout) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(4, 200 * kMicro));
  s.now_ns = 5 * kMicro;
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  EXPECT_EQ(s.NextEventNs(), 205 * kMicro);
  s.now_ns = 204 * kMicro;
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.now_ns = 205 * kMicro;  // of the oldest
  auto batch = s.Start();
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kTimeout);
  EXPECT_EQ(batch->rows(), 2);
}

TEST(BatchDispatch, AFullBatchDoesNotWait) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(2, kMilli));
  s.Enqueue(queue);
  s.Enqueue(queue);
  ASSERT_NE(s.Start(), nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kFull);
}

TEST(BatchDispatch, TimerFiresAsTheBatchFills) {  // race 17: both reasons at one moment make one batch
  SteppedScheduler s;
  auto queue = s.Queue(Policy(2, kMilli));
  auto a = s.Enqueue(queue);
  s.now_ns = kMilli;
  auto b = s.Enqueue(queue);
  auto batch = s.Start();
  EXPECT_EQ(s.Start(), nullptr);
  s.Finish(batch);
  EXPECT_EQ(a->answers + b->answers, 2);
  EXPECT_EQ(s.NextEventNs(), TESSERA_NO_DEADLINE);
}

TEST(BatchDispatch, ADeadlineEndsTheWait) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 100 * kMilli));
  s.Teach(queue, 1, 8 * kMilli);
  auto task = MakeTask();
  task->deadline_ns = 50 * kMilli;
  s.Enqueue(queue, task);
  EXPECT_EQ(s.Start(), nullptr);
  const int64_t at_ns = s.NextEventNs();
  EXPECT_LE(at_ns, 50 * kMilli - 8 * kMilli - 500 * kMicro);
  EXPECT_GE(at_ns, 40 * kMilli);
  s.now_ns = at_ns;
  ASSERT_NE(s.Start(), nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kDeadline);
}

TEST(BatchDispatch, HalfOfTheTimeIsForARunThatWasNeverMeasured) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 100 * kMilli));
  auto task = MakeTask();
  task->deadline_ns = 50 * kMilli;
  s.Enqueue(queue, task);
  EXPECT_EQ(s.Start(), nullptr);
  s.now_ns = s.NextEventNs();
  EXPECT_LE(s.now_ns, 25 * kMilli);
  EXPECT_GE(s.now_ns, 20 * kMilli);
  ASSERT_NE(s.Start(), nullptr);
  EXPECT_EQ(s.last_reason, CloseReason::kDeadline);
}

TEST(BatchDispatch, TheDeadlineOfATaskThatLeftDoesNotEndTheWait) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 100 * kMilli));
  auto urgent = MakeTask();
  urgent->deadline_ns = 50 * kMilli;
  s.Enqueue(queue, urgent);
  s.Enqueue(queue);
  s.Cancel(urgent);
  EXPECT_EQ(s.NextEventNs(), 100 * kMilli);
}

TEST(BatchDispatch, EarliestDeadlineFirstThenOrderOfArrival) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(2));
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int64_t deadline_ms : {0, 30, 20, 0}) {
    auto task = MakeTask();
    if (deadline_ms > 0) task->deadline_ns = deadline_ms * kMilli;
    tasks.push_back(s.Enqueue(queue, task));
  }
  EXPECT_EQ(s.Run(1)->tasks(), (std::vector<std::shared_ptr<BatchTask>>{tasks[2], tasks[1]}));
  EXPECT_EQ(s.Run(1)->tasks(), (std::vector<std::shared_ptr<BatchTask>>{tasks[0], tasks[3]}));
}

TEST(BatchDispatch, TheQueueOfTheMostUrgentTaskIsNext) {
  SteppedScheduler s;
  auto first = s.Queue();
  auto second = s.Queue(first->group);
  s.Enqueue(first);
  auto urgent = MakeTask();
  urgent->deadline_ns = 20 * kMilli;
  s.Enqueue(second, urgent);
  EXPECT_EQ(s.Run(1)->queue, second);
  EXPECT_EQ(s.Run(1)->queue, first);
}

TEST(BatchDispatch, TasksOfDifferentQueuesNeverShareABatch) {  // pitfall 2
  SteppedScheduler s;
  auto first = s.Queue();
  auto second = s.Queue(first->group);
  s.Enqueue(first);
  s.Enqueue(second);
  EXPECT_EQ(s.Run(1)->rows(), 1);
  EXPECT_EQ(s.Run(1)->rows(), 1);
}

TEST(BatchDispatch, LowerPriorityFillsSpareRows) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(3));
  auto low = MakeTask(), high = MakeTask(2), low2 = MakeTask();
  low->priority = low2->priority = 1;
  s.Enqueue(queue, low);
  s.Enqueue(queue, high);
  s.Enqueue(queue, low2);
  EXPECT_EQ(s.Run(1)->tasks(), (std::vector<std::shared_ptr<BatchTask>>{high, low}));
  EXPECT_EQ(s.Run(1)->tasks(), (std::vector<std::shared_ptr<BatchTask>>{low2}));
}

TEST(BatchDispatch, HigherPriorityFirstAcrossGroups) {
  SteppedScheduler s;
  BatchPolicy background;
  background.priority = 2;
  auto low = s.Queue(background);
  auto high = s.Queue();
  s.Enqueue(low);
  s.Enqueue(high);
  EXPECT_EQ(s.Run(1)->queue, high);
  EXPECT_EQ(s.Run(1)->queue, low);
}

TEST(BatchDispatch, PriorityDoesNotStarve) {  // pitfall 27
  SteppedScheduler s;
  BatchPolicy background;
  background.priority = 2;
  auto low = s.Queue(background);
  auto high = s.Queue();
  auto task = s.Enqueue(low);
  for (int i = 0; i < 150 && task->answers == 0; ++i) {
    s.Enqueue(high);
    s.Run(kMilli);
  }
  EXPECT_EQ(task->answers, 1);
  EXPECT_GE(s.now_ns, 100 * kMilli);
  EXPECT_LE(s.now_ns, 103 * kMilli);
}

TEST(BatchDispatch, UrgentTasksDoNotStarveThoseWithoutADeadline) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(1));
  auto patient = s.Enqueue(queue);
  for (int i = 0; i < 2000 && patient->answers == 0; ++i) {
    auto urgent = MakeTask();
    urgent->deadline_ns = s.now_ns + 10 * kMilli;
    s.Enqueue(queue, urgent);
    s.Run(kMilli);
  }
  EXPECT_EQ(patient->answers, 1);
  EXPECT_LE(s.now_ns, 1010 * kMilli);
}

TEST(BatchDispatch, AGroupHasNoMoreInFlightThanItsPolicySays) {
  LaneOptions four;
  four.max_in_flight_batches = 4;
  SteppedScheduler s(four);
  BatchPolicy policy;
  policy.max_in_flight_batches = 1;
  auto narrow = s.Queue(policy), wide = s.Queue();
  s.Enqueue(narrow);
  auto batch = s.Start();
  s.Enqueue(narrow);
  EXPECT_EQ(s.Start(), nullptr);
  for (int i = 0; i < 3; ++i) {
    s.Enqueue(wide);
    EXPECT_NE(s.Start(), nullptr);
  }
  s.Finish(batch);
  EXPECT_EQ(s.Start()->queue, narrow);
  s.Enqueue(wide);
  EXPECT_EQ(s.Start(), nullptr);  // the lane's own bound
}

TEST(BatchDispatch, APolicyTakesEffectForWhatWaits) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 100 * kMilli));
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(s.Enqueue(queue, 3));
  EXPECT_EQ(s.Start(), nullptr);
  BatchPolicy smaller = Policy(2);
  smaller.max_enqueued_rows = 1;  // nor is anything dropped
  s.SetPolicy(queue->group, smaller);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(s.Run(1)->rows(), 3);  // larger than a batch may be now: alone
  for (const auto& task : tasks) EXPECT_EQ(task->code, Code::kOk);
}

TEST(BatchDispatch, ThePriorityOfAPolicyTakesEffectForWhatWaits) {
  SteppedScheduler s;
  auto first = s.Queue(), second = s.Queue();
  auto own = MakeTask();
  own->priority = 0;
  s.Enqueue(first);
  s.Enqueue(second);
  BatchPolicy background;
  background.priority = 1;
  s.SetPolicy(first->group, background);
  EXPECT_EQ(s.Run(1)->queue, second);
  s.Enqueue(first, own);
  EXPECT_EQ(s.Run(1)->tasks()[0], own);
}

TEST(BatchDispatch, TasksRunWhenTheirQueueIsDropped) {  // race 16
  SteppedScheduler s;
  auto queue = s.Queue();
  auto running = s.Enqueue(queue);
  auto batch = s.Start();
  auto waiting = s.Enqueue(queue);
  queue.reset();
  s.Finish(batch);
  batch.reset();
  s.Run(1);
  EXPECT_EQ(running->code, Code::kOk);
  EXPECT_EQ(waiting->code, Code::kOk);
}

TEST(BatchDispatch, NothingWaitsOnceTheLaneCloses) {
  SteppedScheduler s;
  auto queue = s.Queue(Policy(64, 100 * kMilli));
  s.Enqueue(queue);
  EXPECT_EQ(s.Start(), nullptr);
  s.scheduler.Close();
  EXPECT_NE(s.Start(), nullptr);
}

}  // namespace
}  // namespace tessera
