// How the tasks of one subgraph are batched, and how a device is shared.
#ifndef TESSERA_CPP_EXT_BATCH_POLICY_H_
#define TESSERA_CPP_EXT_BATCH_POLICY_H_

#include <cstdint>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

// What happens when the rows of a batch are no allowed size.
enum class BatchPadding : uint8_t {
  kPadUp,      // to the next larger allowed size
  kBatchDown,  // tasks beyond the next smaller allowed size wait, if there is a full one and others run at once
  kMinCost,    // whichever of the two costs less measured device time per row
};

// Of one subgraph; replaced as a whole while it serves.
struct BatchPolicy {
  int64_t max_batch_size = 64;               // rows
  std::vector<int64_t> allowed_batch_sizes;  // ascending, the last is max_batch_size; empty: every size, no padding
  int64_t batch_timeout_ns = 0;              // how long a task may wait for others while the device is free
  int64_t max_enqueued_rows = 4096;          // waiting, not yet dispatched
  int64_t max_enqueued_bytes = int64_t{256} << 20;
  int64_t max_in_flight_batches = 0;  // 0: as many as the lane finds best
  int32_t priority = 0;               // 0 is served first; of tasks that say nothing else
  double weight = 1;                  // share of the device's time while others want it too
  BatchPadding padding = BatchPadding::kPadUp;
  bool split_large_inputs = true;  // false: a whole request of more rows than max_batch_size is refused

  // INVALID_ARGUMENT names the field, what it is and what was expected.
  Status Check() const;
};

// Of one device.
struct LaneOptions {
  int64_t max_in_flight_batches = 0;           // 0: adaptive, 1 or 2
  int64_t inline_budget_ns = 5'000'000;        // work expected to take longer does not run on the thread that brings it
  int64_t max_priority_wait_ns = 100'000'000;  // a task that waited longer is served as priority 0
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BATCH_POLICY_H_
