// Where the tables of one package live in one epoch.
//
// Thread-safety: immutable, but for the suspicions and the queues, which synchronise themselves.
#ifndef TESSERA_CPP_EXT_RPC_ROUTE_H_
#define TESSERA_CPP_EXT_RPC_ROUTE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/fast_div.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/peer.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/suspect.h"

namespace tessera {

class Fanout;
class LookupTrace;
class SendQueue;
class TableStore;

// One server that a route may ask. With neither address nor store it counts as unreachable.
struct TargetSpec {
  std::string server_id;
  std::string address;
  // Asked instead of the address, without sockets.
  std::shared_ptr<TableStore> store;
};

struct TableSpec {
  std::string name;
  int64_t rows = 0;
  int64_t row_bytes = 0;
  uint64_t buckets = 0;
};

struct RouteSpec {
  std::string model;
  int64_t version = 0;
  uint64_t epoch = 0;
  std::string package_digest;  // 32 bytes
  std::vector<TargetSpec> targets;
  // Per slot: positions in `targets`, best first. Only a slot that no bucket falls into may be empty.
  std::vector<std::vector<uint32_t>> slots;
  std::vector<TableSpec> tables;  // in the order of the package's manifest
  // Is told what lookups do. May be null.
  std::shared_ptr<LookupTrace> trace;
};

// Replicas that a lookup can keep track of.
inline constexpr size_t kMaxReplicas = 16;

// For each table, the slot of each bucket.
using BucketSlots = std::vector<std::vector<uint16_t>>;

// Checks `spec` and says where its buckets are. INVALID_ARGUMENT: names the field. Cost: one hash per bucket.
Status CheckRouteSpec(const RouteSpec& spec, BucketSlots* bucket_slots);

}  // namespace tessera

struct TesseraRoute {
 public:
  struct Table {
    std::string name;
    int64_t rows = 0;
    int64_t row_bytes = 0;
    // Wide ids cost twice the bytes on the wire: only where rows need them.
    bool wide_ids = false;
    tessera::FastDivisor buckets{1};
    std::vector<uint16_t> bucket_slots;

    uint64_t Bucket(uint64_t id) const { return buckets.Remainder(id, buckets.Quotient(id)); }
  };
  struct Target {
    std::shared_ptr<tessera::Peer> peer;
    // Does not hold what this route says it holds; other routes may still use it.
    mutable tessera::Suspect not_owner;
    // What this route sends there.
    std::unique_ptr<tessera::SendQueue> queue;
  };
  struct Replicas {
    const uint16_t* begin;
    size_t count;
  };

  // REQUIRES: CheckRouteSpec(spec, &bucket_slots) was OK; `peers` are those of spec.targets. Starts with one reference.
  TesseraRoute(const tessera::RouteSpec& spec, tessera::BucketSlots bucket_slots,
               std::vector<std::shared_ptr<tessera::Peer>> peers, std::shared_ptr<tessera::Fanout> fanout);

  void AddRef() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  const std::string& model() const { return model_; }
  int64_t version() const { return version_; }
  uint64_t epoch() const { return epoch_; }
  const std::string& package_digest() const { return package_digest_; }
  tessera::Fanout& fanout() const { return *fanout_; }
  size_t table_count() const { return tables_.size(); }
  const Table& table(size_t ordinal) const { return tables_[ordinal]; }
  size_t target_count() const { return targets_.size(); }
  const Target& target(size_t position) const { return targets_[position]; }
  // Positions of the targets that hold a slot, best first.
  Replicas replicas(size_t slot) const {
    return {slot_targets_.data() + slot_begins_[slot], slot_begins_[slot + 1] - slot_begins_[slot]};
  }
  // Whether any slot has a replica to go to.
  bool replicated() const { return replicated_; }
  // Null in routes that serve clients.
  tessera::LookupTrace* trace() const { return trace_.get(); }

 private:
  ~TesseraRoute();

  // Own synchronisation.
  std::atomic<int64_t> references_{1};

  // Constant after construction.
  const std::string model_;
  const int64_t version_;
  const uint64_t epoch_;
  const std::string package_digest_;
  const std::shared_ptr<tessera::Fanout> fanout_;  // owns what a lookup needs beside the route
  const std::shared_ptr<tessera::LookupTrace> trace_;
  std::vector<Table> tables_;
  std::vector<Target> targets_;
  std::vector<uint16_t> slot_targets_;
  std::vector<uint32_t> slot_begins_;
  bool replicated_ = false;
};

#endif  // TESSERA_CPP_EXT_RPC_ROUTE_H_
