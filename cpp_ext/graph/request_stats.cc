#include "cpp_ext/graph/request_stats.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpp_ext/base/read_mostly.h"

namespace tessera {
namespace {

constexpr size_t kUnknownCode = 2;

// A counter with one writer, or with several.
void Add(std::atomic<uint64_t>& counter, uint64_t value, bool alone) {
  if (alone) {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  } else {
    counter.fetch_add(value, std::memory_order_relaxed);
  }
}

template <size_t kCells>
struct Histogram {
  std::array<std::atomic<uint64_t>, kCells> counts = {};
  std::atomic<uint64_t> sum{0};

  void Record(size_t cell, int64_t value, bool alone) {
    Add(counts[cell], 1, alone);
    Add(sum, static_cast<uint64_t>(value), alone);
  }

  void AddTo(HistogramTotals<kCells>* totals) const {
    for (size_t i = 0; i < kCells; ++i) totals->counts[i] += counts[i].load(std::memory_order_relaxed);
    totals->sum += sum.load(std::memory_order_relaxed);
  }
};

size_t LatencyCell(int64_t duration_ns) {
  const auto& bounds = LatencyBoundsNs();
  return static_cast<size_t>(std::upper_bound(bounds.begin(), bounds.end(), duration_ns) - bounds.begin());
}

template <size_t kCells>
size_t PowerCell(int64_t value) {
  if (value <= 0) return 0;
  return std::min(kCells - 1, static_cast<size_t>(64 - __builtin_clzll(static_cast<uint64_t>(value))));
}

}  // namespace

const std::array<int64_t, kLatencyCells - 1>& LatencyBoundsNs() {
  static const auto bounds = [] {
    std::array<int64_t, kLatencyCells - 1> made;
    for (size_t i = 0; i < made.size(); ++i) {
      made[i] = std::llround(10'000.0 * std::pow(1.8, static_cast<double>(i)));
    }
    return made;
  }();
  return bounds;
}

struct alignas(64) RequestStats::Cells {
  std::array<std::atomic<uint64_t>, kStatusCodes> codes = {};
  Histogram<kLatencyCells> latency;
  Histogram<kLatencyCells> runtime;
  Histogram<kStageCells> decode;
  Histogram<kStageCells> run;
  Histogram<kStageCells> encode;
  Histogram<kExampleCells> examples;
};

RequestStats::~RequestStats() {
  for (auto& shard : cells_) {
    for (std::atomic<Cells*>& cells : shard) delete cells.load(std::memory_order_relaxed);
  }
}

RequestStats::Cells* RequestStats::CellsOf(size_t shard, size_t kind) {
  std::atomic<Cells*>& slot = cells_[shard][kind];
  Cells* cells = slot.load(std::memory_order_acquire);
  if (cells != nullptr) return cells;
  auto made = std::make_unique<Cells>();
  if (slot.compare_exchange_strong(cells, made.get(), std::memory_order_acq_rel)) return made.release();
  return cells;
}

void RequestStats::Record(Method method, Entrypoint entrypoint, int code, const RequestTimes& times, size_t examples) {
  const uint32_t thread = ThreadNumber();
  const bool alone = thread < kShards - 1;
  const size_t kind = static_cast<size_t>(method) * kCountedEntrypoints + static_cast<size_t>(entrypoint);
  Cells* cells = CellsOf(alone ? thread : kShards - 1, kind);
  const auto index = static_cast<size_t>(code);
  Add(cells->codes[index < kStatusCodes ? index : kUnknownCode], 1, alone);
  if (examples != 0) {
    cells->examples.Record(PowerCell<kExampleCells>(static_cast<int64_t>(examples)), static_cast<int64_t>(examples),
                           alone);
  }
  if (code != 0) return;
  const auto stage = [alone](Histogram<kStageCells>& histogram, int64_t duration_ns) {
    histogram.Record(PowerCell<kStageCells>(duration_ns / 1000), duration_ns, alone);
  };
  const int64_t latency_ns = times.end_ns - times.start_ns;
  const int64_t runtime_ns = times.encode_ns - times.run_ns;
  cells->latency.Record(LatencyCell(latency_ns), latency_ns, alone);
  cells->runtime.Record(LatencyCell(runtime_ns), runtime_ns, alone);
  stage(cells->decode, times.run_ns - times.start_ns);
  stage(cells->run, runtime_ns);
  stage(cells->encode, times.end_ns - times.encode_ns);
}

bool RequestStats::Read(Method method, Entrypoint entrypoint, RequestTotals* totals) const {
  const size_t kind = static_cast<size_t>(method) * kCountedEntrypoints + static_cast<size_t>(entrypoint);
  *totals = RequestTotals();
  bool any = false;
  for (const auto& shard : cells_) {
    const Cells* cells = shard[kind].load(std::memory_order_acquire);
    if (cells == nullptr) continue;
    any = true;
    for (size_t i = 0; i < kStatusCodes; ++i) totals->codes[i] += cells->codes[i].load(std::memory_order_relaxed);
    cells->latency.AddTo(&totals->latency);
    cells->runtime.AddTo(&totals->runtime);
    cells->decode.AddTo(&totals->decode);
    cells->run.AddTo(&totals->run);
    cells->encode.AddTo(&totals->encode);
    cells->examples.AddTo(&totals->examples);
  }
  return any;
}

RequestStats* RequestStatsRegistry::Of(const std::string& model) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = models_.find(model);
  if (found != models_.end()) return found->second.get();
  if (models_.size() >= kMaxModels) return &unknown_;
  return models_.emplace(model, std::make_unique<RequestStats>()).first->second.get();
}

std::vector<std::pair<std::string, const RequestStats*>> RequestStatsRegistry::All() const {
  const std::lock_guard<std::mutex> lock(mu_);
  std::vector<std::pair<std::string, const RequestStats*>> all = {{std::string(kUnknown), &unknown_}};
  for (const auto& [name, stats] : models_) all.emplace_back(name, stats.get());
  return all;
}

}  // namespace tessera
