#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "cpp_ext/base/fast_div.h"

namespace tessera {
namespace {

constexpr uint64_t kLimit = uint64_t{1} << 63;  // dividends are below it

void ExpectExact(uint64_t divisor, uint64_t dividend) {
  const FastDivisor fast(divisor);
  const uint64_t quotient = fast.Quotient(dividend);
  ASSERT_EQ(quotient, dividend / divisor) << dividend << " / " << divisor;
  ASSERT_EQ(fast.Remainder(dividend, quotient), dividend % divisor) << dividend << " % " << divisor;
}

TEST(FastDivisorTest, ExactForAllSmallDividends) {
  for (uint64_t divisor = 1; divisor <= 300; ++divisor) {
    for (uint64_t dividend = 0; dividend <= 1000; ++dividend) ExpectExact(divisor, dividend);
  }
}

// The last dividends before and the first after a multiple of the divisor are where an inexact reciprocal shows.
void ExpectExactAroundMultiples(uint64_t divisor, uint64_t multiple) {
  for (uint64_t around = multiple - 2; around != multiple + 3; ++around) {
    if (around < kLimit) ExpectExact(divisor, around);
  }
}

TEST(FastDivisorTest, ExactAtEdges) {
  std::vector<uint64_t> divisors = {1, 2, 3, 5, 17, 1023, 1025, 65535, 65537, 10'000'019, kLimit - 1, kLimit};
  for (int bit = 1; bit < 63; ++bit) {
    for (const int offset : {-1, 0, 1}) divisors.push_back((uint64_t{1} << bit) + static_cast<uint64_t>(offset));
  }
  for (const uint64_t divisor : divisors) {
    ExpectExact(divisor, 0);
    ExpectExact(divisor, kLimit - 1);
    ExpectExactAroundMultiples(divisor, divisor);
    ExpectExactAroundMultiples(divisor, (kLimit - 1) / divisor * divisor);
    ExpectExactAroundMultiples(divisor, (kLimit - 1) / divisor / 2 * divisor);
  }
}

TEST(FastDivisorTest, ExactForRandomNumbers) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t divisor = (random() >> (1 + random() % 62)) + 1;
    const uint64_t dividend = random() >> (1 + random() % 63);
    ExpectExact(divisor, dividend);
    ExpectExactAroundMultiples(divisor, dividend / divisor * divisor);
  }
}

}  // namespace
}  // namespace tessera
