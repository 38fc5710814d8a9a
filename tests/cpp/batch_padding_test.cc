// Batches of allowed sizes.
#include <gtest/gtest.h>

#include "tests/cpp/batch_fakes.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = SteppedScheduler::kMicro, kMilli = SteppedScheduler::kMilli;

TEST(BatchPadding, PadsToAnAllowedSize) {
  SteppedScheduler s;
  BatchPolicy policy = Policy(16);
  policy.allowed_batch_sizes = {4, 8, 16};
  auto queue = s.Queue(policy);
  s.Enqueue(queue, 5);
  auto batch = s.Run(1);
  EXPECT_EQ(batch->rows(), 5);
  EXPECT_EQ(batch->padded_rows(), 8);
  EXPECT_EQ(queue->group->stats.padding_rows, 3u);
  EXPECT_EQ(queue->group->stats.batch_sizes.at(8), 1u);
}

TEST(BatchPadding, BatchDownLeavesWhatWouldNeedMorePadding) {
  SteppedScheduler s;
  BatchPolicy policy = Policy(16);
  policy.allowed_batch_sizes = {4, 8, 16};
  policy.padding = BatchPadding::kBatchDown;
  auto queue = s.Queue(policy);
  for (int i = 0; i < 10; ++i) s.Enqueue(queue);
  auto batch = s.Run(1);
  EXPECT_EQ(batch->rows(), 8);
  EXPECT_EQ(batch->padded_rows(), 8);
  batch = s.Run(1);  // less than the smallest size: padded
  EXPECT_EQ(batch->rows(), 2);
  EXPECT_EQ(batch->padded_rows(), 4);
}

TEST(BatchPadding, BatchDownPadsUpWhenTheTasksDoNotFillTheSmallerSize) {
  SteppedScheduler s;
  BatchPolicy policy = Policy(16);
  policy.allowed_batch_sizes = {8, 16};
  policy.padding = BatchPadding::kBatchDown;
  auto queue = s.Queue(policy);
  s.Enqueue(queue, 3);
  s.Enqueue(queue, 12);
  EXPECT_EQ(s.Run(1)->rows(), 15);
}

TEST(BatchPadding, MinCostTakesWhatIsCheaperPerRow) {
  for (const bool steep : {true, false}) {
    SteppedScheduler s;
    BatchPolicy policy = Policy(16);
    policy.allowed_batch_sizes = {8, 16};
    policy.padding = BatchPadding::kMinCost;
    auto queue = s.Queue(policy);
    s.Teach(queue, 8, kMilli);
    queue->cost.Learn(16, steep ? 2 * kMilli : kMilli + 1);
    for (int i = 0; i < 12; ++i) s.Enqueue(queue);
    EXPECT_EQ(s.Run(1)->rows(), steep ? 8 : 12);
  }
}

}  // namespace
}  // namespace tessera
