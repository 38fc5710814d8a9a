#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "cpp_ext/graph/rest_cost.h"
#include "cpp_ext/graph/rest_pool.h"

namespace tessera {
namespace {

TEST(RestPoolTest, RunsEverythingBeforeItStops) {
  std::atomic<int> ran{0};
  RestPool pool(4);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(pool.Submit([&ran] { ++ran; }));
  pool.Stop();
  EXPECT_EQ(ran, 1000);
  EXPECT_FALSE(pool.Submit([&ran] { ++ran; }));
  pool.Stop();
  EXPECT_EQ(ran, 1000);
}

TEST(RestCostTest, FirstRequestsSayNothing) {
  RestCost cost;
  for (int i = 0; i < 7; ++i) {
    cost.Observe(i < 4 ? 1'000'000'000 : 1000);
    EXPECT_EQ(cost.expected_ns(), std::numeric_limits<int64_t>::max());
  }
  for (int i = 0; i < 100; ++i) cost.Observe(1000);
  EXPECT_LT(cost.expected_ns(), 2000);
}

TEST(RestCostTest, OneInterruptionIsForgivenAndMoreAreNot) {
  RestCost cost;
  for (int i = 0; i < 20; ++i) cost.Observe(10'000);
  cost.Observe(1'000'000);
  EXPECT_LT(cost.expected_ns(), 200'000);
  for (int i = 0; i < 5; ++i) cost.Observe(1'000'000);
  EXPECT_GT(cost.expected_ns(), 200'000);
}

}  // namespace
}  // namespace tessera
