// How many batches run on a device at a time: a fixed number, or one or two, whichever gives more rows per second.
//
// One is best at low load (two would split what could be one batch) and for a device that is busy with one; two hides
// the work around a batch behind the other one. Which it is, is measured: under load, now and then a window of batches
// runs with the other limit, the less often the more often that did not pay. Not thread-safe.
#ifndef TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_
#define TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_

#include <algorithm>
#include <cstdint>

namespace tessera {

class InFlightLimit {
 public:
  // `fixed` > 0 batches always; 0: one or two.
  explicit InFlightLimit(int64_t fixed) : fixed_(fixed) {}

  int64_t limit() const { return fixed_ > 0 ? fixed_ : limit_; }
  bool fixed() const { return fixed_ > 0; }
  int64_t most() const { return fixed_ > 0 ? fixed_ : 2; }

  // A batch of `rows` ended. `loaded`: others were in flight or waiting.
  void OnFinish(int64_t rows, bool loaded, int64_t now_ns) {
    if (fixed_ > 0) return;
    if (settling_ > 0) {  // these began under the other limit
      if (--settling_ == 0) StartWindow(now_ns);
      return;
    }
    rows_ += rows;
    loaded_ += loaded ? 1 : 0;
    if (++batches_ < kWindowBatches || now_ns - window_ns_ < kWindowNs) return;
    EndWindow(static_cast<double>(rows_) / static_cast<double>(now_ns - window_ns_), loaded_ * 2 >= batches_);
    StartWindow(now_ns);
  }

 private:
  static constexpr int64_t kWindowBatches = 24;
  static constexpr int64_t kWindowNs = 10'000'000;
  static constexpr int64_t kSettle = 3;
  static constexpr int64_t kFirstPause = 2, kLongestPause = 64;  // windows between trials
  static constexpr double kGain = 1.05;                          // two must be faster than one by this to be taken …
  static constexpr double kKeep = 1.03;                          // … and by this to be kept

  void EndWindow(double rate, bool loaded) {
    if (!loaded) {
      trial_ = false;
      pause_ = windows_left_ = kFirstPause;
      if (limit_ != 1) Set(1);
    } else if (trial_) {
      const double two = limit_ == 2 ? rate : base_rate_, one = limit_ == 2 ? base_rate_ : rate;
      const bool better = limit_ == 2 ? two > one * kGain : two < one * kKeep;
      trial_ = false;
      pause_ = better ? kFirstPause * 2 : std::min(pause_ * 2, kLongestPause);
      windows_left_ = pause_;
      if (!better) Set(3 - limit_);
    } else if (--windows_left_ <= 0) {
      trial_ = true;
      base_rate_ = rate;
      Set(3 - limit_);
    }
  }

  void Set(int64_t limit) {
    limit_ = limit;
    settling_ = kSettle;
  }

  void StartWindow(int64_t now_ns) {
    window_ns_ = now_ns;
    rows_ = batches_ = loaded_ = 0;
  }

  const int64_t fixed_;
  int64_t limit_ = 1;
  int64_t settling_ = kSettle;  // batches to ignore before the window starts
  int64_t window_ns_ = 0, rows_ = 0, batches_ = 0, loaded_ = 0;
  bool trial_ = false;    // the window runs with the limit that is being tried
  double base_rate_ = 0;  // rows per ns of the window before the trial
  int64_t pause_ = kFirstPause, windows_left_ = kFirstPause;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_
