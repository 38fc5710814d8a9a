#include "cpp_ext/graph/request_stats.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tessera {
namespace {

RequestTimes Times(int64_t decode_ns, int64_t run_ns, int64_t encode_ns) {
  const int64_t start_ns = 1'000'000'000;
  return {start_ns, start_ns + decode_ns, start_ns + decode_ns + run_ns, start_ns + decode_ns + run_ns + encode_ns};
}

TEST(RequestStatsTest, BoundsAreTenMicrosecondsTimesPowers) {
  const auto& bounds = LatencyBoundsNs();
  EXPECT_EQ(bounds[0], 10'000);
  EXPECT_EQ(bounds[1], 18'000);
  EXPECT_EQ(bounds[2], 32'400);
  for (size_t i = 1; i < bounds.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(bounds[i]) / static_cast<double>(bounds[i - 1]), 1.8, 1e-4);
  }
}

TEST(RequestStatsTest, ABoundBelongsToTheCellAbove) {
  RequestStats stats;
  RequestTotals totals;
  EXPECT_FALSE(stats.Read(Method::kPredict, Entrypoint::kGrpc, &totals));
  stats.Record(Method::kPredict, Entrypoint::kGrpc, 0, Times(0, 9'999, 0), 0);
  stats.Record(Method::kPredict, Entrypoint::kGrpc, 0, Times(0, 10'000, 0), 0);
  stats.Record(Method::kPredict, Entrypoint::kGrpc, 0, Times(0, int64_t{3'000} * 1'000'000'000, 0), 0);
  ASSERT_TRUE(stats.Read(Method::kPredict, Entrypoint::kGrpc, &totals));
  EXPECT_EQ(totals.latency.counts[0], 1u);
  EXPECT_EQ(totals.latency.counts[1], 1u);
  EXPECT_EQ(totals.latency.counts[kLatencyCells - 1], 1u);
  EXPECT_EQ(totals.run.counts[4], 2u);  // 8 µs ≤ v < 16 µs
  EXPECT_EQ(totals.run.counts[kStageCells - 1], 1u);
  EXPECT_EQ(totals.decode.counts[0], 3u);
}

TEST(RequestStatsTest, FailuresAreCountedByCodeOnly) {
  RequestStats stats;
  stats.Record(Method::kRegress, Entrypoint::kRest, 3, {}, 7);
  stats.Record(Method::kRegress, Entrypoint::kRest, 99, {}, 0);
  RequestTotals totals;
  ASSERT_TRUE(stats.Read(Method::kRegress, Entrypoint::kRest, &totals));
  EXPECT_EQ(totals.codes[3], 1u);
  EXPECT_EQ(totals.codes[2], 1u);  // a code that nobody knows
  EXPECT_EQ(totals.examples.sum, 7u);
  EXPECT_EQ(totals.examples.counts[3], 1u);
  for (const uint64_t count : totals.latency.counts) EXPECT_EQ(count, 0u);
  EXPECT_FALSE(stats.Read(Method::kRegress, Entrypoint::kGrpc, &totals));
}

TEST(RequestStatsTest, ManyThreadsLoseNothing) {
  RequestStats stats;
  std::vector<std::thread> threads;
  for (int i = 0; i < 40; ++i) {  // more than have cells of their own
    threads.emplace_back([&stats] {
      for (int n = 0; n < 1000; ++n) stats.Record(Method::kClassify, Entrypoint::kGrpc, 0, Times(1, 2, 3), 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
  RequestTotals totals;
  ASSERT_TRUE(stats.Read(Method::kClassify, Entrypoint::kGrpc, &totals));
  EXPECT_EQ(totals.codes[0], 40'000u);
  EXPECT_EQ(totals.examples.sum, 80'000u);
  EXPECT_EQ(totals.latency.sum, 240'000u);
}

TEST(RequestStatsRegistryTest, ModelsBeyondTheLimitShareTheUnknown) {
  RequestStatsRegistry registry;
  RequestStats* const first = registry.Of("first");
  EXPECT_EQ(registry.Of("first"), first);
  for (size_t i = 1; i < RequestStatsRegistry::kMaxModels; ++i) registry.Of("m" + std::to_string(i));
  EXPECT_EQ(registry.Of("one too many"), registry.unknown());
  EXPECT_EQ(registry.Of("first"), first);
  EXPECT_EQ(registry.All().size(), RequestStatsRegistry::kMaxModels + 1);
}

}  // namespace
}  // namespace tessera
