#include "cpp_ext/rpc/outlier.h"

#include <algorithm>

namespace tessera {

Outlier::Interval Outlier::TakeInterval() {
  Interval interval{this, answers_.exchange(0, std::memory_order_relaxed),
                    failures_.exchange(0, std::memory_order_relaxed), 0.0};
  const int64_t took_ns = took_ns_.exchange(0, std::memory_order_relaxed);
  if (interval.answers > 0) interval.mean_ns = static_cast<double>(took_ns) / static_cast<double>(interval.answers);
  return interval;
}

bool Outlier::IsOutlier(const Interval& one, const std::vector<Interval>& all, int64_t slow_ns) {
  int64_t answers = 0, failures = 0;
  std::vector<double> means;
  for (const Interval& other : all) {
    if (other.server == one.server) continue;
    answers += other.answers;
    failures += other.failures;
    means.push_back(other.mean_ns);
  }
  if (means.empty()) return false;
  const double share = static_cast<double>(one.failures) / static_cast<double>(one.answers);
  const double others = static_cast<double>(failures) / static_cast<double>(answers);
  if (share >= kFailureShare && others < share / 2) return true;
  const auto median = means.begin() + static_cast<std::ptrdiff_t>(means.size() / 2);
  std::nth_element(means.begin(), median, means.end());
  return one.mean_ns >= static_cast<double>(slow_ns) && one.mean_ns > kSlowFactor * *median;
}

void Outlier::Eject(int64_t now_ns) {
  const int64_t time_ns = std::min(kFirstNs << std::min(in_a_row_, 8), kLongestNs);
  ++in_a_row_;
  ejections_.fetch_add(1, std::memory_order_relaxed);
  until_ns_.store(now_ns + time_ns, std::memory_order_relaxed);
}

int64_t EjectOutliers(const std::vector<Outlier*>& servers, int64_t slow_ns, int64_t now_ns) {
  int64_t allowed = servers.size() < 2 ? 0 : std::max<int64_t>(1, static_cast<int64_t>(servers.size()) / 3);
  std::vector<Outlier::Interval> judged;
  for (Outlier* const server : servers) {
    const Outlier::Interval interval = server->TakeInterval();
    if (server->ejected(now_ns)) {
      --allowed;
    } else if (interval.answers >= Outlier::kMinAnswers) {
      judged.push_back(interval);
    }
  }
  int64_t ejected = 0;
  for (const Outlier::Interval& interval : judged) {
    if (!Outlier::IsOutlier(interval, judged, slow_ns)) {
      // An interval without fault takes back what one with fault added.
      interval.server->in_a_row_ = std::max(0, interval.server->in_a_row_ - 1);
    } else if (ejected < allowed) {
      interval.server->Eject(now_ns);
      ++ejected;
    }
  }
  return ejected;
}

}  // namespace tessera
