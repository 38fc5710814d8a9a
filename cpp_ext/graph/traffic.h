// How the requests to a model that name neither a version nor a label are divided between its versions.
//
// Each share draws a number from the hash of the client and of itself, and the smallest one in relation to its
// percentage wins (weighted rendezvous hashing). So a client stays where it is as long as percentages do; when they
// change, clients only move to shares that grew in relation to the one they leave; and when a version is not there, its
// clients spread over the others by their percentages and nobody else moves.
#ifndef TESSERA_CPP_EXT_GRAPH_TRAFFIC_H_
#define TESSERA_CPP_EXT_GRAPH_TRAFFIC_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

// Reads what came with a request: the value of a metadata key (lower case), empty if there is none.
using MetadataReader = absl::FunctionRef<absl::string_view(absl::string_view key)>;

// Immutable but for its counters; thread-safe. Shared by the snapshots that are made while it is configured.
class TrafficSplit {
 public:
  struct Share {
    std::string label;     // empty: `version` is meant
    int64_t version = -1;  // REQUIRES: -1 if there is a label
    double percent = 0;
  };
  struct Counts {
    uint64_t chosen = 0;    // requests that this share got
    uint64_t rerouted = 0;  // requests that this share would have got, had its version been there
  };
  static constexpr size_t kMaxShares = 64;

  // INVALID_ARGUMENT names what is wrong: no share or too many, a version or a label twice, percentages that are
  // negative or do not sum up to 100.
  static absl::StatusOr<std::shared_ptr<TrafficSplit>> Make(std::vector<Share> shares, std::string sticky_header);

  const std::vector<Share>& shares() const { return shares_; }
  // What decides where a client belongs: the header's value, else `client_id`, else empty.
  absl::string_view StickyValue(MetadataReader metadata, absl::string_view client_id) const;
  // Returns the share of a request, -1 if no share with a percentage is available, and counts it. `available[i]` says
  // whether the version of share i is there; an empty `sticky` leaves it to chance. Cost: about 20 ns a share.
  int Choose(absl::Span<const char> available, absl::string_view sticky) const;
  Counts counts(size_t share) const;

 private:
  struct Cell {
    std::atomic<uint64_t> chosen{0};
    std::atomic<uint64_t> rerouted{0};
  };
  TrafficSplit() = default;

  std::vector<Share> shares_;
  std::vector<uint64_t> seeds_;  // of the shares: depend on what they name only
  std::string sticky_header_;
  std::unique_ptr<Cell[]> cells_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TRAFFIC_H_
