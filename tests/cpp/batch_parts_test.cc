// The parts that decide on numbers alone: policy, costs, batches in flight.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "cpp_ext/batch/cost_model.h"
#include "cpp_ext/batch/in_flight.h"
#include "cpp_ext/batch/policy.h"
#include "cpp_ext/batch/stats.h"

namespace tessera {
namespace {

constexpr int64_t kMicro = 1'000, kMilli = 1'000'000;

std::string Problem(const BatchPolicy& policy) {
  const Status status = policy.Check();
  EXPECT_EQ(status.code(), status.ok() ? Code::kOk : Code::kInvalidArgument);
  return status.message();
}

TEST(BatchPolicy, NamesTheFieldWhatItIsAndWhatWasExpected) {
  EXPECT_EQ(Problem({}), "");
  BatchPolicy policy;
  policy.max_batch_size = 0;
  EXPECT_EQ(Problem(policy), "max_batch_size is 0, expected at least 1");
  policy = {};
  policy.allowed_batch_sizes = {8, 8, 64};
  EXPECT_EQ(Problem(policy), "allowed_batch_sizes[1] is 8, expected more than 8: the sizes ascend from at least 1");
  policy.allowed_batch_sizes = {8, 32};
  EXPECT_EQ(Problem(policy), "the last of allowed_batch_sizes is 32, expected max_batch_size, which is 64");
  policy = {};
  policy.batch_timeout_ns = -1;
  EXPECT_EQ(Problem(policy), "batch_timeout_micros is -1, expected at least 0");
  policy = {};
  policy.max_enqueued_rows = 0;
  EXPECT_EQ(Problem(policy), "max_enqueued_rows is 0, expected at least 1");
  policy = {};
  policy.max_enqueued_bytes = -5;
  EXPECT_EQ(Problem(policy), "max_enqueued_bytes is -5, expected at least 1");
  policy = {};
  policy.max_in_flight_batches = 65;
  EXPECT_EQ(Problem(policy), "max_in_flight_batches is 65, expected 0 (as the lane finds best) to 64");
  policy = {};
  policy.priority = -1;
  EXPECT_EQ(Problem(policy), "priority is -1, expected at least 0");
  policy = {};
  policy.weight = std::nan("");
  EXPECT_EQ(Problem(policy), "weight is nan, expected 0.001 to 1000");
  policy.weight = 0;
  EXPECT_EQ(Problem(policy), "weight is 0.000000, expected 0.001 to 1000");
}

TEST(CostModel, KnowsNothingAndDoesNotLearnFromTheFirstRun) {
  CostModel cost;
  EXPECT_EQ(cost.Predict(1), CostModel::kUnknown);
  cost.Learn(1, 500 * kMilli);
  EXPECT_EQ(cost.Predict(1), CostModel::kUnknown);
  cost.Learn(1, kMilli);
  EXPECT_EQ(cost.Predict(1), kMilli);
}

TEST(CostModel, OneSizeBoundsTheOthers) {
  CostModel cost;
  cost.Learn(8, 1);
  cost.Learn(8, 8 * kMilli);
  EXPECT_EQ(cost.Predict(4), 8 * kMilli);
  EXPECT_EQ(cost.Predict(16), 16 * kMilli);
}

TEST(CostModel, FitsALineForSizesThatItHasNotSeen) {
  CostModel cost;
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const int64_t rows = 1 + 2 * (random() % 20);  // odd sizes
    cost.Learn(rows, 5 * kMilli + rows * 100 * kMicro);
  }
  for (const int64_t rows : {2, 10, 40, 200}) {
    EXPECT_NEAR(cost.Predict(rows), 5 * kMilli + rows * 100 * kMicro, 50 * kMicro) << rows;
  }
}

TEST(CostModel, KeepsWhatASizeReallyTakes) {
  CostModel cost;  // 9 rows take as long as 16 do: padded inside
  for (int i = 0; i < 20; ++i) {
    for (const int64_t rows : {1, 8, 9, 16}) cost.Learn(rows, (rows > 8 ? 2 : 1) * kMilli);
  }
  EXPECT_NEAR(cost.Predict(8), kMilli, kMicro);
  EXPECT_NEAR(cost.Predict(9), 2 * kMilli, kMicro);
}

TEST(CostModel, ForgetsAndIsNotFooledByOneSlowRun) {
  CostModel cost;
  for (int i = 0; i < 50; ++i) cost.Learn(4, kMilli);
  cost.Learn(4, 1000 * kMilli);
  EXPECT_LE(cost.Predict(4), 1.31 * kMilli);
  for (int i = 0; i < 30; ++i) cost.Learn(4, 10 * kMilli);
  EXPECT_NEAR(cost.Predict(4), 10 * kMilli, kMilli);
}

TEST(CostModel, LargeSizesShareCells) {
  CostModel cost;
  cost.Learn(1, 1);
  for (int64_t rows = 1; rows <= 1'000'000; rows = rows * 5 / 4 + 1) {
    cost.Learn(rows, rows * kMicro);
    EXPECT_NEAR(static_cast<double>(cost.Predict(rows)) / static_cast<double>(rows * kMicro), 1, 0.13) << rows;
  }
}

TEST(CostModel, AtLeastIsWhatWasMeasuredOfLate) {
  CostModel cost;
  EXPECT_EQ(cost.AtLeast(1), CostModel::kUnknown);
  cost.Learn(1, 1);
  cost.Learn(1, kMilli);
  EXPECT_EQ(cost.AtLeast(32), kMilli);  // not thirty-two times as much
  cost.Learn(32, 10 * kMilli);
  EXPECT_EQ(cost.AtLeast(32), 10 * kMilli);
  for (int i = 0; i < 100; ++i) cost.Learn(1, kMilli);
  EXPECT_EQ(cost.AtLeast(32), kMilli);  // that was long ago
  EXPECT_EQ(cost.Predict(32), 10 * kMilli);
}

TEST(CostModel, OneSizeFoundCheaperSpeaksForAll) {
  CostModel cost;
  cost.Learn(1, 1);
  for (const int64_t rows : {1, 8, 32}) cost.Learn(rows, 50 * kMilli);
  cost.Learn(1, 5 * kMilli);
  EXPECT_LE(cost.AtLeast(1), 28 * kMilli);
  EXPECT_EQ(cost.AtLeast(32), cost.AtLeast(1));
}

TEST(Overlap, FindsSerialAndParallelDevices) {
  for (const double part : {0.0, 0.5, 1.0}) {
    Overlap overlap;
    std::mt19937 random(1);
    std::uniform_int_distribution<int64_t> ns(5 * kMilli, 15 * kMilli);
    for (int i = 0; i < 100; ++i) {
      const int64_t ahead_ns = ns(random);
      overlap.Learn(10 * kMilli, ahead_ns, ns(random) + static_cast<int64_t>(part * static_cast<double>(ahead_ns)));
    }
    EXPECT_NEAR(overlap.part(), part, 0.25);
  }
  Overlap none;
  none.Learn(CostModel::kUnknown, kMilli, 10 * kMilli);
  none.Learn(10 * kMilli, 0, 20 * kMilli);
  EXPECT_EQ(none.part(), 0);
}

TEST(PredictionError, IsWhatNineInTenStayBelow) {
  PredictionError error;
  EXPECT_EQ(error.MarginNs(10 * kMilli), kMilli / 2);
  std::mt19937 random(1);
  std::uniform_int_distribution<int64_t> ns(80 * kMilli, 120 * kMilli);
  for (int i = 0; i < 1000; ++i) error.Learn(100 * kMilli, ns(random));
  EXPECT_NEAR(error.MarginNs(100 * kMilli), 16 * kMilli, 6 * kMilli);
  for (int i = 0; i < 1000; ++i) error.Learn(kMilli, 100 * kMilli);
  EXPECT_EQ(error.MarginNs(100 * kMilli), 50 * kMilli);  // no more than half
}

// Lets an InFlightLimit run batches whose rate depends on the limit; returns the part of the batches with limit 2.
double TimeAtTwo(double rate_of_two, int batches, bool loaded = true) {
  InFlightLimit limit(0);
  std::mt19937 random(7);
  std::normal_distribution<double> noise(1, 0.02);
  int64_t now_ns = 0, at_two = 0;
  for (int i = 0; i < batches; ++i) {
    now_ns += static_cast<int64_t>(kMilli * noise(random) / (limit.limit() == 2 ? rate_of_two : 1));
    limit.OnFinish(32, 32, 64 * kMilli, loaded, now_ns);
    EXPECT_GE(limit.limit(), 1);
    EXPECT_LE(limit.limit(), 2);
    at_two += limit.limit() == 2;
  }
  return static_cast<double>(at_two) / batches;
}

TEST(InFlightLimit, TakesTwoWhereTheyAreFaster) { EXPECT_GE(TimeAtTwo(1.4, 5000), 0.9); }
TEST(InFlightLimit, KeepsOneWhereTwoAreNoFaster) {
  EXPECT_LE(TimeAtTwo(1.0, 5000), 0.15);
  EXPECT_LE(TimeAtTwo(0.7, 5000), 0.15);
}
TEST(InFlightLimit, IsOneWithoutLoad) { EXPECT_EQ(TimeAtTwo(1.4, 5000, false), 0); }

TEST(InFlightLimit, LingersWhereThatIsFaster) {
  for (const int64_t fixed : {0, 3}) {
    InFlightLimit limit(fixed);
    int64_t now_ns = 0, lingered = 0;
    for (int i = 0; i < 3000; ++i) {
      now_ns += kMilli;
      limit.OnFinish(4, 4, limit.lingers() ? 4 * kMilli : 6 * kMilli, true, now_ns);
      lingered += limit.lingers();
      EXPECT_TRUE(fixed == 0 || limit.limit() == fixed);
    }
    EXPECT_GE(lingered, 2700) << fixed;
  }
}

TEST(InFlightLimit, LingersOnlyToTryWhereThatIsNoFaster) {
  InFlightLimit limit(0);
  int64_t lingered = 0;
  for (int i = 0; i < 5000; ++i) {
    limit.OnFinish(4, 4, limit.lingers() ? 6 * kMilli : 4 * kMilli, true, i * kMilli);
    lingered += limit.lingers();
  }
  EXPECT_GE(lingered, 24);
  EXPECT_LE(lingered, 400);
}

TEST(InFlightLimit, StopsToLingerSoonWhenTheCallersDoNotComeBackAnyMore) {
  InFlightLimit limit(1);
  int64_t now_ns = 0;
  for (int i = 0; i < 5000 || !limit.lingers(); ++i) {
    now_ns += kMilli;
    limit.OnFinish(4, 4, limit.lingers() ? 4 * kMilli : 6 * kMilli, true, now_ns);
    if (limit.lingers()) limit.OnLingered(true);
  }
  int missed = 0;
  for (; limit.lingers(); ++missed) limit.OnLingered(missed % 4 == 0);  // that a new one came now and then says nothing
  EXPECT_LE(missed, 32);
}

TEST(InFlightLimit, GoesBackToOneWhenTheLoadEnds) {
  InFlightLimit limit(0);
  int64_t now_ns = 0;
  const auto run = [&](int batches, bool loaded) {
    for (int i = 0; i < batches; ++i) {
      now_ns += limit.limit() == 2 ? kMilli / 2 : kMilli;
      limit.OnFinish(8, 8, 16 * kMilli, loaded, now_ns);
    }
  };
  run(300, true);
  EXPECT_EQ(limit.limit(), 2);
  run(60, false);
  EXPECT_EQ(limit.limit(), 1);
}

TEST(InFlightLimit, AFixedNumberStays) {
  InFlightLimit limit(5);
  for (int i = 0; i < 1000; ++i) limit.OnFinish(1, 1, kMilli, true, i * kMilli);
  EXPECT_EQ(limit.limit(), 5);
  EXPECT_EQ(limit.most(), 5);
}

TEST(PowerHistogram, CountsByPowersOfTwo) {
  PowerHistogram<4> histogram;
  for (const uint64_t value : {0, 1, 2, 3, 4, 1000}) histogram.Add(value);
  EXPECT_EQ(histogram.counts, (std::array<uint64_t, 4>{1, 1, 2, 2}));
  EXPECT_EQ(histogram.sum, 1010u);
  EXPECT_EQ(histogram.count, 6u);
}

}  // namespace
}  // namespace tessera
