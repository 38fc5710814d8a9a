#include "cpp_ext/graph/rest_cost.h"

#include <algorithm>
#include <limits>

namespace tessera {
namespace {

constexpr uint32_t kObservedBeforeTrust = 8;
constexpr int64_t kMaxObservedNs = 2'000'000;

}  // namespace

int64_t RestCost::expected_ns() const {
  if (observed_.load(std::memory_order_relaxed) < kObservedBeforeTrust) return std::numeric_limits<int64_t>::max();
  return held_ns_.load(std::memory_order_relaxed);
}

void RestCost::Observe(int64_t held_ns) {
  // Observations that meet may lose one of them, which does no harm. The first requests of a model are slow and say
  // nothing; one that was interrupted for long says little, hence the bound.
  const uint32_t seen = observed_.load(std::memory_order_relaxed);
  if (seen < kObservedBeforeTrust) observed_.store(seen + 1, std::memory_order_relaxed);
  const int64_t observed_ns = std::min(held_ns, kMaxObservedNs);
  const int64_t before_ns = held_ns_.load(std::memory_order_relaxed);
  const bool first = seen < kObservedBeforeTrust / 2;
  held_ns_.store(first ? observed_ns : before_ns + (observed_ns - before_ns) / 8, std::memory_order_relaxed);
}

}  // namespace tessera
