// How long batches run, how far they get into each other's way, and how wrong that is: learned from what was measured.
// Old measurements fade. Not thread-safe.
#ifndef TESSERA_CPP_EXT_BATCH_COST_MODEL_H_
#define TESSERA_CPP_EXT_BATCH_COST_MODEL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

// How long a batch of some size runs, alone on the device: c(rows). A moving average for each size that was seen; for
// the others a line a + b·rows fitted to all of them.
class CostModel {
 public:
  static constexpr int64_t kUnknown = -1;

  // A batch of `rows` (≥ 1) took `ns`. The first one is not counted: it pays for allocations and compilation.
  void Learn(int64_t rows, int64_t ns) {
    if (cold_) {
      cold_ = false;
      return;
    }
    double sample = static_cast<double>(std::max<int64_t>(ns, 1));
    const size_t index = Index(rows);
    if (index >= cells_.size()) cells_.resize(index + 1);
    Cell& cell = cells_[index];
    // A thread that lost its core must not teach much; a cost that really rose is learned in a few runs.
    if (cell.count > 0) sample = std::min(sample, kOutlier * cell.ns);
    ++run_;
    if (cell.count > 0 && sample * 2 < cell.ns) {  // what was known of the other sizes is of another time, too
      cell.count = 1;
      trusted_from_ = run_;
    }
    cell.run = run_;
    last_rows_ = rows;
    cell.count = std::min(cell.count + 1, kMemory);
    cell.ns += (sample - cell.ns) / static_cast<double>(cell.count);

    const double n = static_cast<double>(rows);
    weight_ = weight_ * kFade + 1;
    n_ = n_ * kFade + n;
    nn_ = nn_ * kFade + n * n;
    t_ = t_ * kFade + sample;
    nt_ = nt_ * kFade + n * sample;
  }

  // Nanoseconds that a batch of `rows` (≥ 1) is expected to take, or kUnknown. O(1).
  int64_t Predict(int64_t rows) const {
    if (const size_t index = Index(rows); index < cells_.size() && cells_[index].count > 0) {
      return static_cast<int64_t>(cells_[index].ns);
    }
    if (weight_ == 0) return kUnknown;
    const double n = static_cast<double>(rows), mean_n = n_ / weight_, mean_t = t_ / weight_;
    const double spread = nn_ / weight_ - mean_n * mean_n;
    // All of about one size: more rows cost more in proportion at most, fewer rows no more.
    if (spread < 1e-3 * mean_n * mean_n) return static_cast<int64_t>(mean_t * std::max(1.0, n / mean_n));
    const double slope = std::max(0.0, (nt_ / weight_ - mean_n * mean_t) / spread);
    return static_cast<int64_t>(std::max(mean_t + slope * (n - mean_n), 1.0));
  }

  // As Predict, but not more than what was measured of late shows: to be refused, a task must be known to be late. A
  // size that is only thought too dear would not be run, and never be found cheaper.
  int64_t AtLeast(int64_t rows) const {
    if (run_ == 0) return kUnknown;
    const size_t index = Index(rows);
    const bool seen = index < cells_.size() && cells_[index].count > 0;
    if (seen && cells_[index].run >= trusted_from_ && cells_[index].run + kTrustedRuns > run_) {
      return static_cast<int64_t>(cells_[index].ns);
    }
    return std::min(Predict(rows), Predict(last_rows_));
  }

 private:
  struct Cell {
    double ns = 0;
    int64_t count = 0;
    int64_t run = 0;  // the last one
  };

  static constexpr int64_t kMemory = 10;       // runs of one size that the average remembers
  static constexpr double kFade = 0.99;        // of a measurement in the line, per newer one
  static constexpr int64_t kTrustedRuns = 64;  // of the batches, since one of that size
  static constexpr double kOutlier = 4;        // times the average that one run counts for at most

  // Sizes up to 64 have a cell each, larger ones share eight cells an octave.
  static size_t Index(int64_t rows) {
    if (rows <= 64) return static_cast<size_t>(rows);
    const size_t width = 64 - static_cast<size_t>(__builtin_clzll(static_cast<uint64_t>(rows)));
    return 64 + (width - 7) * 8 + (static_cast<size_t>(rows) >> (width - 4)) - 7;
  }

  bool cold_ = true;
  int64_t run_ = 0;  // counts what was learned
  int64_t trusted_from_ = 0;
  int64_t last_rows_ = 0;
  std::vector<Cell> cells_;
  double weight_ = 0, n_ = 0, nn_ = 0, t_ = 0, nt_ = 0;  // faded sums: 1, rows, rows², time, rows·time
};

// Of a prediction, for messages.
inline std::string Micros(int64_t ns) {
  return ns == CostModel::kUnknown ? "not known yet" : std::to_string(ns / 1000) + " microseconds";
}

// How much of what is in flight a batch has to wait for: 1 where the device runs one after the other, 0 where it runs
// them side by side.
class Overlap {
 public:
  double part() const { return part_; }

  // A batch that runs `cost_ns` alone took `ns`; those that were in flight before it ended `ahead_ns` after its start.
  void Learn(int64_t cost_ns, int64_t ahead_ns, int64_t ns) {
    if (cost_ns == CostModel::kUnknown || ahead_ns <= 0 || ahead_ns * 4 < cost_ns) return;  // it would tell little
    const double sample = static_cast<double>(ns - cost_ns) / static_cast<double>(ahead_ns);
    count_ = std::min(count_ + 1, kMemory);
    part_ += (std::clamp(sample, -1.0, 2.0) - part_) / static_cast<double>(count_);
    part_ = std::clamp(part_, 0.0, 1.0);
  }

 private:
  static constexpr int64_t kMemory = 16;  // measurements that the average remembers
  double part_ = 0;
  int64_t count_ = 0;
};

// By how much a batch may end later than predicted, but for one in ten.
class PredictionError {
 public:
  void Learn(int64_t predicted_ns, int64_t ns) {
    const double over = static_cast<double>(ns) / static_cast<double>(std::max<int64_t>(predicted_ns, 1)) - 1;
    part_ = std::clamp(part_ + kStep * (over > part_ ? kQuantile : kQuantile - 1), 0.0, kMost);
  }
  // On top of a prediction.
  int64_t MarginNs(int64_t predicted_ns) const {
    return std::max(static_cast<int64_t>(part_ * static_cast<double>(predicted_ns)), kLeastNs);
  }

 private:
  static constexpr int64_t kLeastNs = 500'000;  // threads wake late, and an answer has some way to go
  static constexpr double kQuantile = 0.9;
  static constexpr double kStep = 0.05;
  static constexpr double kMost = 0.5;
  double part_ = 0;  // of the prediction
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_COST_MODEL_H_
