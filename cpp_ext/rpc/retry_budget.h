// How many retries and hedges may still be sent, so that a dead server cannot multiply the load on its replicas.
//
// A full budget pays for all that can be in flight when a server dies; after that successes must earn it (a tenth of
// a retry each). Hedges, which only save time, may use the upper half alone; the rest is kept for failures.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_RETRY_BUDGET_H_
#define TESSERA_CPP_EXT_RPC_RETRY_BUDGET_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tessera {

class RetryBudget {
 public:
  explicit RetryBudget(uint32_t tokens) : full_(int64_t{tokens} * kTenths), tenths_(full_) {}

  // Takes a token for a retry; returns whether there was one.
  bool TakeForRetry() { return Take(kTenths); }
  bool TakeForHedge() { return Take(std::max(kTenths, full_ / 2)); }

  void OnSuccess() {
    // A full budget, the usual case, is only read.
    int64_t tenths = tenths_.load(std::memory_order_relaxed);
    while (tenths < full_ && !tenths_.compare_exchange_weak(tenths, tenths + 1, std::memory_order_relaxed)) {
    }
  }

 private:
  static constexpr int64_t kTenths = 10;

  bool Take(int64_t at_least) {
    int64_t tenths = tenths_.load(std::memory_order_relaxed);
    while (tenths >= at_least) {
      if (tenths_.compare_exchange_weak(tenths, tenths - kTenths, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  const int64_t full_;
  std::atomic<int64_t> tenths_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_RETRY_BUDGET_H_
