// Whether a server is better avoided for a while, judged by what it did lately.
//
// A failure makes it suspect at once, lateness only when repeated without a success between; each time longer. When
// the time is over, one lookup goes there again as a probe while the others still avoid it: a success clears it.
// Whether there is anything better to ask is the caller's business: the last replica is asked, suspect or not.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_SUSPECT_H_
#define TESSERA_CPP_EXT_RPC_SUSPECT_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tessera {

class Suspect {
 public:
  static constexpr int64_t kFirstNs = 200'000'000;
  static constexpr int64_t kLongestNs = 5'000'000'000;
  static constexpr uint32_t kLateLimit = 2;

  // Returns whether to go there. After a suspicion's time, true for one caller, who thereby probes.
  bool Allows(int64_t now_ns) {
    int64_t until_ns = until_ns_.load(std::memory_order_relaxed);
    if (until_ns == kTrusted) return true;
    if (now_ns < until_ns) return false;
    return until_ns_.compare_exchange_strong(until_ns, now_ns + Duration(), std::memory_order_relaxed);
  }

  bool suspected() const { return until_ns_.load(std::memory_order_relaxed) != kTrusted; }

  void OnSuccess() {
    // Read first: the usual case must not write to a line that all pollers read.
    if (late_.load(std::memory_order_relaxed) != 0) late_.store(0, std::memory_order_relaxed);
    if (!suspected()) return;
    failures_.store(0, std::memory_order_relaxed);
    until_ns_.store(kTrusted, std::memory_order_relaxed);
  }

  void OnFailure(int64_t now_ns) {
    // Calls that were in flight together fail together: that is one failure, not a reason to wait longer.
    if (suspected() && now_ns - failed_ns_.load(std::memory_order_relaxed) < kFirstNs / 2) return;
    failures_.fetch_add(1, std::memory_order_relaxed);
    failed_ns_.store(now_ns, std::memory_order_relaxed);
    until_ns_.store(now_ns + Duration(), std::memory_order_relaxed);
  }

  void OnLate(int64_t now_ns) {
    if (late_.fetch_add(1, std::memory_order_relaxed) + 1 >= kLateLimit) OnFailure(now_ns);
  }

 private:
  static constexpr int64_t kTrusted = INT64_MIN;

  int64_t Duration() const {
    const uint32_t failures = failures_.load(std::memory_order_relaxed);
    const uint32_t doublings = std::min<uint32_t>(failures == 0 ? 0 : failures - 1, 8);
    return std::min(kFirstNs << doublings, kLongestNs);
  }

  std::atomic<int64_t> until_ns_{kTrusted};
  std::atomic<int64_t> failed_ns_{0};
  std::atomic<uint32_t> failures_{0};
  std::atomic<uint32_t> late_{0};
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SUSPECT_H_
