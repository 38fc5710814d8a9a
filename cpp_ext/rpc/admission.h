// Which calls are worth beginning when more come than can be answered.
//
// A queue that is served in order, under more load than there is capacity, grows until everything in it is too old to
// be of use: the server is busy, and answers nobody in time. So a call is refused, before it has cost anything, when
// what waits before it would take more than half of the time that it has left; and once more when its turn comes, if it
// has waited for longer than what is left. The other half is for the work itself.
//
// Pure: times are handed in. Thread-safety: of one thread.
#ifndef TESSERA_CPP_EXT_RPC_ADMISSION_H_
#define TESSERA_CPP_EXT_RPC_ADMISSION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace tessera {

class Admission {
 public:
  // A call that waited was run for `ns`.
  void OnRun(int64_t ns) { mean_ns_ += (ns - mean_ns_) / kWeight; }

  // What `waiting` calls will take.
  int64_t WaitNs(size_t waiting) const { return static_cast<int64_t>(waiting) * mean_ns_; }

  // Whether a call with `left_ns` until its deadline may wait behind `waiting` others.
  bool Admits(size_t waiting, int64_t left_ns) const { return left_ns > 0 && WaitNs(waiting) <= left_ns / 2; }

  // Whether it is still worth beginning after it has waited.
  static bool IsWorthBeginning(int64_t waited_ns, int64_t left_ns) { return left_ns > 0 && waited_ns <= left_ns; }

  // After which time a refused caller may find room.
  int64_t RetryAfterMs(size_t waiting) const {
    return std::clamp<int64_t>(WaitNs(waiting) / 1'000'000, kLeastRetryMs, kMostRetryMs);
  }

  static constexpr int64_t kLeastRetryMs = 10;
  static constexpr int64_t kMostRetryMs = 10'000;

 private:
  static constexpr int64_t kWeight = 8;
  int64_t mean_ns_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_ADMISSION_H_
