#include "cpp_ext/batch/policy.h"

#include <cmath>
#include <string>

namespace tessera {
namespace {

// Each batch in flight may hold a thread.
constexpr int64_t kMaxInFlight = 64;

Status Invalid(const char* field, const std::string& given, const std::string& expected) {
  return Status(Code::kInvalidArgument, std::string(field) + " is " + given + ", expected " + expected);
}

Status AtLeast(const char* field, int64_t value, int64_t least) {
  if (value >= least) return Status();
  return Invalid(field, std::to_string(value), "at least " + std::to_string(least));
}

Status CheckAllowedSizes(const BatchPolicy& policy) {
  const std::vector<int64_t>& sizes = policy.allowed_batch_sizes;
  int64_t previous = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] <= previous) {
      const std::string field = "allowed_batch_sizes[" + std::to_string(i) + "]";
      return Invalid(field.c_str(), std::to_string(sizes[i]),
                     "more than " + std::to_string(previous) + ": the sizes ascend from at least 1");
    }
    previous = sizes[i];
  }
  if (!sizes.empty() && sizes.back() != policy.max_batch_size) {
    return Invalid("the last of allowed_batch_sizes", std::to_string(sizes.back()),
                   "max_batch_size, which is " + std::to_string(policy.max_batch_size));
  }
  return Status();
}

}  // namespace

Status BatchPolicy::Check() const {
  if (Status status = AtLeast("max_batch_size", max_batch_size, 1); !status.ok()) return status;
  if (Status status = CheckAllowedSizes(*this); !status.ok()) return status;
  if (Status status = AtLeast("batch_timeout_micros", batch_timeout_ns / 1000 - (batch_timeout_ns % 1000 < 0), 0);
      !status.ok()) {
    return status;
  }
  if (Status status = AtLeast("max_enqueued_rows", max_enqueued_rows, 1); !status.ok()) return status;
  if (Status status = AtLeast("max_enqueued_bytes", max_enqueued_bytes, 1); !status.ok()) return status;
  if (max_in_flight_batches < 0 || max_in_flight_batches > kMaxInFlight) {
    return Invalid("max_in_flight_batches", std::to_string(max_in_flight_batches),
                   "0 (as the lane finds best) to " + std::to_string(kMaxInFlight));
  }
  if (Status status = AtLeast("priority", priority, 0); !status.ok()) return status;
  // Shares further apart than this starve the smaller one for minutes.
  if (!std::isfinite(weight) || weight < 1e-3 || weight > 1e3) {
    return Invalid("weight", std::to_string(weight), "0.001 to 1000");
  }
  return Status();
}

}  // namespace tessera
