// What a lane and its groups count. Plain values; totals since the start.
#ifndef TESSERA_CPP_EXT_BATCH_STATS_H_
#define TESSERA_CPP_EXT_BATCH_STATS_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

namespace tessera {

// Counts by powers of two: cell i counts values v with 2^(i-1) <= v < 2^i (cell 0: v < 1), the last one all above.
template <size_t kCells>
struct PowerHistogram {
  std::array<uint64_t, kCells> counts = {};
  uint64_t sum = 0;
  uint64_t count = 0;

  void Add(uint64_t value) {
    const size_t width = value == 0 ? 0 : 64 - static_cast<size_t>(__builtin_clzll(value));
    ++counts[std::min(width, kCells - 1)];
    sum += value;
    ++count;
  }
};

// Why a batch was dispatched.
enum class CloseReason : uint8_t { kIdle, kFull, kTimeout, kDeadline, kAllInLoop, kBisect, kCount };

struct BatchGroupStats {
  uint64_t tasks = 0;  // admitted
  uint64_t rows = 0;   // run for tasks
  uint64_t batches = 0;
  uint64_t padding_rows = 0;                // run for nobody
  uint64_t inline_batches = 0;              // ran on the thread that brought the task
  std::map<int64_t, uint64_t> batch_sizes;  // padded rows → batches; bounded by max_batch_size seen
  std::array<uint64_t, static_cast<size_t>(CloseReason::kCount)> close_reasons = {};
  PowerHistogram<28> queue_delay_micros;
  PowerHistogram<28> execution_micros;
  uint64_t rejected_rows_bound = 0, rejected_bytes_bound = 0, rejected_too_large = 0;
  uint64_t expired_queued = 0, expired_running = 0;  // DEADLINE_EXCEEDED before, after dispatch
  uint64_t cancelled = 0;
  uint64_t failed_batches = 0, bisected_batches = 0;
  int64_t enqueued_rows = 0, enqueued_bytes = 0;  // now
  int64_t in_loop = 0;                            // now
  int64_t device_ns = 0;                          // device time charged to the group
};

struct LaneStats {
  int64_t busy_ns = 0;   // at least one batch in flight
  int64_t since_ns = 0;  // when the lane was made
  int64_t now_ns = 0;
  int64_t in_flight = 0;        // now
  int64_t in_flight_limit = 1;  // now
  uint64_t timer_wakeups = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_STATS_H_
