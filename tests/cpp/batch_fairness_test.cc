// Several subgraphs on one device.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMilli = SteppedScheduler::kMilli;

// Keeps the queues full for `ns`; a batch of queue i takes costs_ns[i].
void Flood(SteppedScheduler* s, const std::vector<std::shared_ptr<BatchQueue>>& queues,
           const std::vector<int64_t>& costs_ns, int64_t ns) {
  const int64_t until_ns = s->now_ns + ns;
  while (s->now_ns < until_ns) {
    for (const auto& queue : queues) {
      while (queue->rows() < 2 * queue->group->policy.max_batch_size) s->Enqueue(queue);
    }
    auto batch = s->Start();
    const size_t i = static_cast<size_t>(std::find(queues.begin(), queues.end(), batch->queue) - queues.begin());
    s->now_ns += costs_ns[i];
    s->Finish(batch);
  }
}

TEST(BatchFairness, GroupsShareTheDevicesTimeNotItsBatches) {
  SteppedScheduler s;
  auto heavy = s.Queue(), light = s.Queue();
  Flood(&s, {heavy, light}, {10 * kMilli, kMilli}, 2000 * kMilli);
  const double share = static_cast<double>(heavy->group->stats.device_ns) /
                       static_cast<double>(heavy->group->stats.device_ns + light->group->stats.device_ns);
  EXPECT_NEAR(share, 0.5, 0.02);
}

TEST(BatchFairness, SharesFollowTheWeights) {
  SteppedScheduler s;
  BatchPolicy triple;
  triple.weight = 3;
  auto large = s.Queue(triple), small = s.Queue();
  Flood(&s, {large, small}, {2 * kMilli, 3 * kMilli}, 2000 * kMilli);
  EXPECT_NEAR(static_cast<double>(large->group->stats.device_ns) / static_cast<double>(small->group->stats.device_ns),
              3, 0.15);
}

TEST(BatchFairness, AQuietGroupWaitsForOneBatchAtMost) {
  SteppedScheduler s;
  auto flood = s.Queue(), other_flood = s.Queue(), quiet = s.Queue();
  Flood(&s, {flood, other_flood}, {10 * kMilli, 10 * kMilli}, 500 * kMilli);
  for (int i = 0; i < 20; ++i) {
    for (const auto& queue : {flood, other_flood}) {
      while (queue->rows() < 64) s.Enqueue(queue);
    }
    auto running = s.Start();
    auto task = s.Enqueue(quiet);
    s.now_ns += 10 * kMilli;
    s.Finish(running);
    EXPECT_EQ(s.Run(kMilli)->queue, quiet);
    EXPECT_EQ(task->code, Code::kOk);
  }
}

TEST(BatchFairness, AGroupThatWasIdleEarnedNothing) {
  SteppedScheduler s;
  auto busy = s.Queue(), idle = s.Queue();
  Flood(&s, {busy}, {kMilli}, 1000 * kMilli);
  const int64_t before_ns = busy->group->stats.device_ns;
  Flood(&s, {busy, idle}, {kMilli, kMilli}, 100 * kMilli);
  EXPECT_NEAR(static_cast<double>(busy->group->stats.device_ns - before_ns) / kMilli, 50, 2);
}

TEST(BatchFairness, BatchesInFlightTogetherShareTheirTime) {
  LaneOptions two;
  two.max_in_flight_batches = 2;
  SteppedScheduler s(two);
  auto first = s.Queue(), second = s.Queue();
  s.Enqueue(first);
  s.Enqueue(second);
  auto a = s.Start(), b = s.Start();
  s.now_ns += 4 * kMilli;
  s.Finish(a);
  s.now_ns += kMilli;
  s.Finish(b);
  EXPECT_EQ(first->group->stats.device_ns, 2 * kMilli);
  EXPECT_EQ(second->group->stats.device_ns, 3 * kMilli);
  EXPECT_EQ(s.scheduler.stats(s.now_ns).busy_ns, 5 * kMilli);
}

TEST(BatchFairness, ManyGroupsAndShapesAllGetTheirTurn) {  // pitfall 27
  SteppedScheduler s;
  std::vector<std::shared_ptr<BatchQueue>> queues;
  std::vector<std::shared_ptr<FakeTask>> tasks;
  for (int group = 0; group < 10; ++group) {
    queues.push_back(s.Queue());
    for (int shape = 1; shape < 5; ++shape) queues.push_back(s.Queue(queues.back()->group));
  }
  for (const auto& queue : queues) tasks.push_back(s.Enqueue(queue));
  int runs = 0;
  while (s.Run(kMilli) != nullptr) {
    ++runs;
    s.Enqueue(queues[0]);  // a flood of one shape
    if (runs > 200) break;
  }
  for (const auto& task : tasks) EXPECT_EQ(task->answers, 1);
}

}  // namespace
}  // namespace tessera
