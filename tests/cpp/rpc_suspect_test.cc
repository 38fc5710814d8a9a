// Who is avoided and how many retries there are, without a clock.
#include <gtest/gtest.h>

#include <algorithm>

#include "cpp_ext/rpc/retry_budget.h"
#include "cpp_ext/rpc/suspect.h"

namespace tessera {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(Suspect, IsTrustedUntilItFails) {
  Suspect suspect;
  EXPECT_TRUE(suspect.Allows(0));
  suspect.OnFailure(1000 * kMs);
  EXPECT_TRUE(suspect.suspected());
  EXPECT_FALSE(suspect.Allows(1001 * kMs));
  EXPECT_FALSE(suspect.Allows(1199 * kMs));
}

TEST(Suspect, LetsOneProbeAfterItsTime) {
  Suspect suspect;
  suspect.OnFailure(0);
  EXPECT_TRUE(suspect.Allows(200 * kMs));
  EXPECT_FALSE(suspect.Allows(200 * kMs));
  EXPECT_FALSE(suspect.Allows(399 * kMs));
  EXPECT_TRUE(suspect.Allows(400 * kMs)) << "a probe that never came back must not block the next";
}

TEST(Suspect, IsTrustedAgainAfterASuccess) {
  Suspect suspect;
  suspect.OnFailure(0);
  suspect.OnSuccess();
  EXPECT_FALSE(suspect.suspected());
  EXPECT_TRUE(suspect.Allows(1));
  EXPECT_TRUE(suspect.Allows(1));
}

TEST(Suspect, IsAvoidedLongerWithEachFailedProbeUpToALimit) {
  Suspect suspect;
  int64_t now_ns = 0;
  suspect.OnFailure(now_ns);
  int64_t expected_ns = Suspect::kFirstNs;
  for (int i = 0; i < 12; ++i) {
    EXPECT_FALSE(suspect.Allows(now_ns + expected_ns - 1)) << i;
    ASSERT_TRUE(suspect.Allows(now_ns + expected_ns)) << i;
    now_ns += expected_ns;
    suspect.OnFailure(now_ns);
    expected_ns = std::min(2 * expected_ns, Suspect::kLongestNs);
  }
  EXPECT_EQ(expected_ns, Suspect::kLongestNs);
}

TEST(Suspect, CountsFailuresOfOneMomentOnce) {
  Suspect suspect;
  for (int i = 0; i < 1000; ++i) suspect.OnFailure(i * kMs / 100);
  EXPECT_TRUE(suspect.Allows(250 * kMs)) << "a thousand calls broke at once: still the first, short suspicion";
}

TEST(Suspect, ForgivesASingleLateAnswer) {
  Suspect suspect;
  suspect.OnLate(0);
  EXPECT_FALSE(suspect.suspected());
  suspect.OnSuccess();
  suspect.OnLate(0);
  EXPECT_FALSE(suspect.suspected());
  suspect.OnLate(0);
  EXPECT_TRUE(suspect.suspected());
}

TEST(RetryBudget, IsSpentAndEarnedBackByTenSuccesses) {
  RetryBudget budget(2);
  EXPECT_TRUE(budget.TakeForRetry());
  EXPECT_TRUE(budget.TakeForRetry());
  EXPECT_FALSE(budget.TakeForRetry());
  for (int i = 0; i < 9; ++i) budget.OnSuccess();
  EXPECT_FALSE(budget.TakeForRetry());
  budget.OnSuccess();
  EXPECT_TRUE(budget.TakeForRetry());
  EXPECT_FALSE(budget.TakeForRetry());
}

TEST(RetryBudget, NeverHoldsMoreThanItStartedWith) {
  RetryBudget budget(3);
  for (int i = 0; i < 1000; ++i) budget.OnSuccess();
  int taken = 0;
  while (budget.TakeForRetry()) ++taken;
  EXPECT_EQ(taken, 3);
}

TEST(RetryBudget, KeepsItsLowerHalfForFailures) {
  RetryBudget budget(10);
  int hedges = 0, retries = 0;
  while (budget.TakeForHedge()) ++hedges;
  while (budget.TakeForRetry()) ++retries;
  EXPECT_EQ(hedges, 6) << "down to half, which pays for one more";
  EXPECT_EQ(retries, 4);
}

TEST(RetryBudget, OfOneTokenPaysForOneHedge) {
  RetryBudget budget(1);
  EXPECT_TRUE(budget.TakeForHedge());
  EXPECT_FALSE(budget.TakeForHedge());
  EXPECT_FALSE(budget.TakeForRetry());
}

}  // namespace
}  // namespace tessera
