// Which servers do much worse than the others, judged by what all of them did in an interval.
//
// `Suspect` reacts to single failures, and forgives with the next success: right for a server that is down, too kind to
// one that fails every third request, or answers far more slowly than its peers. Such a server is ejected: avoided for
// a time that grows while it comes back no better. Statistics can be wrong, so only a part of the servers may be
// ejected at once; and whether there is anything better to ask is the caller's business, as it is for Suspect.
//
// Thread-safety: all methods may be called from any thread, EjectOutliers on one at a time.
#ifndef TESSERA_CPP_EXT_RPC_OUTLIER_H_
#define TESSERA_CPP_EXT_RPC_OUTLIER_H_

#include <atomic>
#include <cstdint>
#include <vector>

namespace tessera {

// One server's record.
class Outlier {
 public:
  static constexpr int64_t kIntervalNs = 5'000'000'000;
  // A server with fewer answers in an interval is not judged. Suspect leaves some a second to a server that fails
  // often.
  static constexpr int64_t kMinAnswers = 20;
  // Of its answers, above which it fails too often, if the others fail less than half as often.
  static constexpr double kFailureShare = 0.3;
  // Of the median of the others, above which its mean time is too long.
  static constexpr double kSlowFactor = 3.0;
  static constexpr int64_t kFirstNs = 10'000'000'000;
  static constexpr int64_t kLongestNs = 120'000'000'000;

  void OnAnswer(bool failed, int64_t took_ns) {
    answers_.fetch_add(1, std::memory_order_relaxed);
    took_ns_.fetch_add(took_ns, std::memory_order_relaxed);
    if (failed) failures_.fetch_add(1, std::memory_order_relaxed);
  }

  bool ejected(int64_t now_ns) const { return now_ns < until_ns_.load(std::memory_order_relaxed); }
  // How often it was.
  int64_t ejections() const { return ejections_.load(std::memory_order_relaxed); }

 private:
  friend int64_t EjectOutliers(const std::vector<Outlier*>& servers, int64_t slow_ns, int64_t now_ns);
  struct Interval {
    Outlier* server;
    int64_t answers;
    int64_t failures;
    double mean_ns;
  };
  Interval TakeInterval();
  // Whether it is one, beside the `others`, which includes itself.
  static bool IsOutlier(const Interval& one, const std::vector<Interval>& all, int64_t slow_ns);
  void Eject(int64_t now_ns);

  std::atomic<int64_t> answers_{0};
  std::atomic<int64_t> failures_{0};
  std::atomic<int64_t> took_ns_{0};
  std::atomic<int64_t> until_ns_{INT64_MIN};
  std::atomic<int64_t> ejections_{0};
  int in_a_row_ = 0;  // of EjectOutliers
};

// Ends the interval of all `servers`, and ejects those that did much worse than the others: a third of them at most,
// but one in any case where there are two. Slow is only who takes `slow_ns` or more. Returns how many were ejected.
int64_t EjectOutliers(const std::vector<Outlier*>& servers, int64_t slow_ns, int64_t now_ns);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_OUTLIER_H_
