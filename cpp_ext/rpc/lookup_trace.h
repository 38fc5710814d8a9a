// What the lookups over one route did, for `tessera explain`. A route has a trace only if it was made with one, for the
// sake of one request; others pay a comparison with null.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_LOOKUP_TRACE_H_
#define TESSERA_CPP_EXT_RPC_LOOKUP_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

// What was asked of one server, and what came of it.
struct TracedSubRequest {
  std::string server_id;
  std::string address;
  std::string cause;                         // first, retry or hedge
  std::map<std::string, size_t> table_rows;  // rows by table
  size_t ids_bytes = 0;                      // sent
  size_t rows_bytes = 0;                     // wanted
  int64_t started_ns = 0;
  int64_t ended_ns = 0;
  Status status;
};

struct TracedLookup {
  size_t rows = 0;     // distinct ones
  size_t repeats = 0;  // ids that asked for a row again
  int64_t started_ns = 0;
  int64_t ended_ns = 0;  // 0: it runs
  Status status;
  std::vector<TracedSubRequest> sub_requests;  // in the order of their ends
};

class LookupTrace {
 public:
  // More are not kept.
  static constexpr size_t kMaxLookups = 1000;
  static constexpr size_t kMaxSubRequests = 10'000;

  // Returns the number of a lookup that starts now.
  size_t Begin(int64_t now_ns) {
    std::lock_guard<std::mutex> lock(mu_);
    if (lookups_.size() < kMaxLookups) {
      lookups_.emplace_back();
      lookups_.back().started_ns = now_ns;
    }
    return begun_++;
  }
  void Add(size_t lookup, TracedSubRequest sub_request) {
    std::lock_guard<std::mutex> lock(mu_);
    if (lookup >= lookups_.size() || kept_ == kMaxSubRequests) {
      ++dropped_;
      return;
    }
    ++kept_;
    lookups_[lookup].sub_requests.push_back(std::move(sub_request));
  }
  void End(size_t lookup, size_t rows, size_t repeats, int64_t now_ns, Status status) {
    std::lock_guard<std::mutex> lock(mu_);
    if (lookup >= lookups_.size()) return;
    TracedLookup& traced = lookups_[lookup];
    traced.rows = rows;
    traced.repeats = repeats;
    traced.ended_ns = now_ns;
    traced.status = std::move(status);
  }

  std::vector<TracedLookup> lookups() const {
    std::lock_guard<std::mutex> lock(mu_);
    return lookups_;
  }
  // Sub-requests that were not kept.
  size_t dropped() const {
    std::lock_guard<std::mutex> lock(mu_);
    return dropped_;
  }

 private:
  mutable std::mutex mu_;
  // Guarded by mu_.
  std::vector<TracedLookup> lookups_;
  size_t begun_ = 0;
  size_t kept_ = 0;
  size_t dropped_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_TRACE_H_
