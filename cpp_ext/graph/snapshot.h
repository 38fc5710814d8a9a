// Which versions of which models are served: immutable snapshots, replaced as a
// whole.
#ifndef TESSERA_CPP_EXT_GRAPH_SNAPSHOT_H_
#define TESSERA_CPP_EXT_GRAPH_SNAPSHOT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/answer_hook.h"
#include "cpp_ext/graph/graph.h"
#include "cpp_ext/graph/request_stats.h"
#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/traffic.h"

namespace tessera {

// A version with all that a request to it needs; a request pins it until it
// ends.
class ServedVersion {
 public:
  // FAILED_PRECONDITION: the graph has TesseraLookup ops and `fanout` or
  // `route` is null, or the route has too few tables. Retains `route`. `hook` sees every answer; null for none.
  static absl::StatusOr<std::shared_ptr<ServedVersion>> Make(int64_t version, std::shared_ptr<LoadedGraph> graph,
                                                             const TesseraFanoutApi* fanout, TesseraRoute* route,
                                                             std::vector<std::string> labels,
                                                             std::shared_ptr<AnswerHook> hook = nullptr);
  ~ServedVersion();

  int64_t version() const { return version_; }
  const LoadedGraph& graph() const { return *graph_; }
  const TesseraFanoutApi* fanout() const { return fanout_; }
  TesseraRoute* route() const { return route_; }
  const std::vector<std::string>& labels() const { return labels_; }
  AnswerHook* hook() const { return hook_.get(); }
  void CountRequest() const { requests_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }

 private:
  ServedVersion() = default;

  int64_t version_ = 0;
  std::shared_ptr<LoadedGraph> graph_;
  const TesseraFanoutApi* fanout_ = nullptr;
  TesseraRoute* route_ = nullptr;
  std::vector<std::string> labels_;
  std::shared_ptr<AnswerHook> hook_;
  mutable std::atomic<uint64_t> requests_{0};
};

using Pin = std::shared_ptr<const ServedVersion>;

// Drops a pin; what it was the last to hold is freed on another thread.
void ReleasePin(Pin pin);

struct ServedModel {
  std::string name;
  std::vector<Pin> versions;                  // the largest first; not empty
  std::shared_ptr<const TrafficSplit> split;  // null: requests that name no version get the largest
  std::vector<Pin> split_versions;            // of the split's shares, null where there is none; made by Snapshot
  std::vector<char> split_available;          // likewise
  RequestStats* stats = nullptr;              // outlives the snapshot's readers
};

// What labels stand for, where the version that has one is not there.
struct KnownLabels {
  std::map<std::string, std::map<std::string, int64_t>, std::less<>> versions;  // by model and label
  bool complete = true;  // false: others may come, so that nobody can say that there is no such label
};

class Snapshot {
 public:
  // INVALID_ARGUMENT: a model without versions, a version or a label twice.
  static absl::StatusOr<std::shared_ptr<const Snapshot>> Make(std::vector<ServedModel> models, KnownLabels labels = {});

  // Finds what the request names, with TensorFlow Serving's codes and texts; `metadata` is read only where a split with
  // a sticky header has to decide. Sets `stats`, also on an error, when the model is served and has some.
  absl::Status Resolve(const RequestView& request, MetadataReader metadata, Pin* pin, RequestStats** stats) const;
  const std::vector<ServedModel>& models() const { return models_; }

 private:
  absl::Status NoSuchLabel(const RequestView& request) const;

  std::vector<ServedModel> models_;  // sorted by name
  KnownLabels labels_;
};

// The current snapshot. Readers on different threads touch different memory,
// and hold a lock, which only a change contends for, as long as it takes to
// find a version.
class CurrentSnapshot {
 public:
  CurrentSnapshot();
  void Replace(std::shared_ptr<const Snapshot> snapshot);
  absl::Status Resolve(const RequestView& request, MetadataReader metadata, Pin* pin, RequestStats** stats) const;
  std::shared_ptr<const Snapshot> Get() const;

 private:
  struct alignas(64) Cell {
    std::mutex mu;
    std::shared_ptr<const Snapshot> snapshot;  // guarded by mu
  };
  static constexpr size_t kCells = 32;
  Cell& CellOfThisThread() const;

  std::mutex replace_mu_;  // makes every cell see changes in the same order
  mutable Cell cells_[kCells];
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_SNAPSHOT_H_
