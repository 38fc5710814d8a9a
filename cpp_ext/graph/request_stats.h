// What is counted of the requests to a model: by method and by where they came in.
//
// Thread-safety: Record from any thread; no lock, no waiting, and no allocation but for the first request of a thread
// to a (model, method, entry point). Read from any thread: totals that may miss what is being recorded just now.
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_STATS_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_STATS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cpp_ext/graph/answer_hook.h"
#include "cpp_ext/graph/local_call.h"

namespace tessera {

constexpr size_t kMethods = 4;
constexpr size_t kCountedEntrypoints = 2;  // gRPC and REST
constexpr size_t kStatusCodes = 17;
// Cell i counts LatencyBoundsNs()[i - 1] ≤ duration < LatencyBoundsNs()[i], the last cell all above.
constexpr size_t kLatencyCells = 34;
// Cell i counts 2^(i-1) ≤ v < 2^i (cell 0: v < 1), the last cell all above. Microseconds for stages.
constexpr size_t kStageCells = 26;
constexpr size_t kExampleCells = 16;

// 10 µs · 1.8^i: TensorFlow Serving's.
const std::array<int64_t, kLatencyCells - 1>& LatencyBoundsNs();

struct RequestTimes {
  int64_t start_ns = 0;
  int64_t run_ns = 0;     // the execution began; 0: it did not
  int64_t encode_ns = 0;  // the execution ended
  int64_t end_ns = 0;
};

template <size_t kCells>
struct HistogramTotals {
  std::array<uint64_t, kCells> counts = {};
  uint64_t sum = 0;
};

// Durations are sums of nanoseconds.
struct RequestTotals {
  std::array<uint64_t, kStatusCodes> codes = {};
  HistogramTotals<kLatencyCells> latency;   // successes
  HistogramTotals<kLatencyCells> runtime;   // successes
  HistogramTotals<kStageCells> decode;      // successes
  HistogramTotals<kStageCells> run;         // successes
  HistogramTotals<kStageCells> encode;      // successes
  HistogramTotals<kExampleCells> examples;  // requests that were run; empty for Predict
};

// One model's.
class RequestStats {
 public:
  RequestStats() = default;
  ~RequestStats();
  RequestStats(const RequestStats&) = delete;
  RequestStats& operator=(const RequestStats&) = delete;

  // `code` is the answer's; `examples` is what Classify, Regress and MultiInference ran on, 0 for what did not get
  // there. REQUIRES: entrypoint is not kInternal.
  void Record(Method method, Entrypoint entrypoint, int code, const RequestTimes& times, size_t examples);

  // False when nothing was recorded.
  bool Read(Method method, Entrypoint entrypoint, RequestTotals* totals) const;

 private:
  struct Cells;
  // Threads with small numbers have cells of their own; the others share the last.
  static constexpr size_t kShards = 16;
  Cells* CellsOf(size_t shard, size_t kind);

  std::array<std::array<std::atomic<Cells*>, kMethods * kCountedEntrypoints>, kShards> cells_ = {};
};

// The statistics of all models by name: kept when a model is not served any more, as counters must not fall.
// Thread-safe.
class RequestStatsRegistry {
 public:
  // Names of requests for models that are not served; and of the models that are too many to be told apart.
  static constexpr absl::string_view kUnknown = "(unknown)";
  static constexpr size_t kMaxModels = 4096;

  // Valid as long as this object.
  RequestStats* Of(const std::string& model);
  RequestStats* unknown() { return &unknown_; }
  // By name, `kUnknown` among them.
  std::vector<std::pair<std::string, const RequestStats*>> All() const;

 private:
  mutable std::mutex mu_;
  std::map<std::string, std::unique_ptr<RequestStats>> models_;  // guarded by mu_
  RequestStats unknown_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_STATS_H_
