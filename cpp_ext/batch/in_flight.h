// How batches follow each other on a device: how many run at a time (a fixed number, or one or two), and whether one
// lingers for the callers that the last one answered. Whatever does most rows per second, or, where callers wait for
// each other's answers or arrive at a rate of their own, answers them soonest.
//
// One at once is best at low load (two would split what could be one batch) and for a device that is busy with one; two
// hides the work around a batch behind the other one; to linger pays where a few callers come back with their next
// request a little after their answer, and a larger batch costs little more. Which it is, is measured: under load, now
// and then a window of batches runs in one of the other ways, the less often the more often that did not pay. Not
// thread-safe.
#ifndef TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_
#define TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_

#include <algorithm>
#include <cstdint>

namespace tessera {

class InFlightLimit {
 public:
  // `fixed` > 0 batches always; 0: one or two.
  explicit InFlightLimit(int64_t fixed) : fixed_(fixed) {}

  int64_t limit() const { return fixed_ > 0 ? fixed_ : way_ == kTwo ? 2 : 1; }
  bool fixed() const { return fixed_ > 0; }
  int64_t most() const { return fixed_ > 0 ? fixed_ : 2; }
  bool lingers() const { return way_ == kLinger; }

  // A batch starts that could linger; `came_back`: as many callers are there as there were. Where they mostly do not
  // come, that is over without waiting for a trial: the load is another one.
  void OnLingered(bool came_back) {
    missed_ = std::max<int64_t>(missed_ + (came_back ? -1 : 1), 0);
    if (missed_ < kMostMissed) return;
    trial_ = false;
    windows_left_ = pause_ = std::min(pause_ * 2, kLongestPause);
    Set(kAtOnce);
  }

  // A batch of `tasks` and `rows` ended; they took `task_ns` together, from when they came. `loaded`: others were in
  // flight or waiting, or it had several tasks.
  void OnFinish(int64_t rows, size_t tasks, int64_t task_ns, bool loaded, int64_t now_ns) {
    if (settling_ > 0) {  // these began in the other way
      if (--settling_ == 0) StartWindow(now_ns);
      return;
    }
    rows_ += rows;
    tasks_ += static_cast<int64_t>(tasks);
    task_ns_ += task_ns;
    loaded_ += loaded ? 1 : 0;
    if (++batches_ < kWindowBatches || now_ns - window_ns_ < kWindowNs) return;
    EndWindow({static_cast<double>(rows_) / static_cast<double>(now_ns - window_ns_),
               static_cast<double>(task_ns_) / static_cast<double>(std::max<int64_t>(tasks_, 1))},
              loaded_ * 2 >= batches_);
    StartWindow(now_ns);
  }

 private:
  enum Way { kAtOnce, kTwo, kLinger, kWays };  // the plain one first
  struct Figures {
    double rate = 0;     // rows per ns
    double task_ns = 0;  // mean of a task, from its arrival to its answer
  };

  static constexpr int64_t kWindowBatches = 24;
  static constexpr int64_t kWindowNs = 10'000'000;
  static constexpr int64_t kSettle = 3;
  static constexpr int64_t kMostMissed = 12;                     // more than those that came back in time
  static constexpr int64_t kFirstPause = 2, kLongestPause = 64;  // windows between trials
  static constexpr double kGain = 1.05;                          // by this another way must be faster to be taken …
  static constexpr double kKeep = 1.03;                          // … and by this than kAtOnce to be kept

  // By what the way that is tried is faster than the one before. To linger adds to what each task waits, which pays
  // only where it shortens that on the whole: where the same callers come back, that is also where more of them are
  // answered.
  double Gain(const Figures& trial) const {
    if (way_ == kLinger || base_way_ == kLinger) return base_.task_ns / trial.task_ns;
    return trial.rate / base_.rate;
  }

  void EndWindow(const Figures& figures, bool loaded) {
    if (!loaded) {
      trial_ = false;
      pause_ = windows_left_ = kFirstPause;
      if (way_ != kAtOnce) Set(kAtOnce);
    } else if (trial_) {
      const bool better = Gain(figures) > (way_ == kAtOnce ? 1 / kKeep : kGain);
      trial_ = false;
      pause_ = better ? kFirstPause * 2 : std::min(pause_ * 2, kLongestPause);
      windows_left_ = pause_;
      if (!better) Set(base_way_);
    } else if (--windows_left_ <= 0) {
      trial_ = true;
      base_ = figures;
      base_way_ = way_;
      do {
        tried_ = static_cast<Way>((tried_ + 1) % kWays);
      } while (tried_ == way_ || (tried_ == kTwo && fixed()));
      Set(tried_);
    }
  }

  void Set(Way way) {
    way_ = way;
    settling_ = kSettle;
    missed_ = 0;
  }

  void StartWindow(int64_t now_ns) {
    window_ns_ = now_ns;
    rows_ = tasks_ = task_ns_ = batches_ = loaded_ = 0;
  }

  const int64_t fixed_;
  Way way_ = kAtOnce, base_way_ = kAtOnce, tried_ = kAtOnce;
  int64_t settling_ = kSettle;  // batches to ignore before the window starts
  int64_t window_ns_ = 0, rows_ = 0, tasks_ = 0, task_ns_ = 0, batches_ = 0, loaded_ = 0;
  int64_t missed_ = 0;
  bool trial_ = false;  // the window runs in a way that is being tried
  Figures base_;        // of the window before the trial
  int64_t pause_ = kFirstPause, windows_left_ = kFirstPause;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_IN_FLIGHT_H_
