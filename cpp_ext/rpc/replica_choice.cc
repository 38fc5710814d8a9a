#include "cpp_ext/rpc/replica_choice.h"

#include <vector>

namespace tessera {
namespace {

enum Opinion : uint8_t { kUnasked, kFine, kAvoid };

// By target; kept by the thread so that a plan allocates nothing.
thread_local std::vector<uint8_t> opinions;

bool IsUntried(const TesseraRoute& route, const LookupRow& row, size_t replica) {
  const size_t target = route.replicas(row.slot).begin[replica];
  return (row.tried >> replica & 1) == 0 && route.target(target).peer->transport != nullptr;
}

}  // namespace

ReplicaChoice::ReplicaChoice(const TesseraRoute& route, int64_t now_ns) : route_(route), now_ns_(now_ns) {
  opinions.assign(route.target_count(), kUnasked);
}

int ReplicaChoice::Best(const LookupRow& row) {
  const TesseraRoute::Replicas replicas = route_.replicas(row.slot);
  int first = -1;
  for (size_t i = 0; i < replicas.count; ++i) {
    if (!IsUntried(route_, row, i)) continue;
    if (IsFine(replicas.begin[i])) return static_cast<int>(i);
    if (first < 0) first = static_cast<int>(i);
  }
  return first;
}

bool ReplicaChoice::IsFine(size_t target) {
  uint8_t& opinion = opinions[target];
  if (opinion == kUnasked) {
    const TesseraRoute::Target& asked = route_.target(target);
    const bool fine = asked.peer->suspect.Allows(now_ns_) && asked.not_owner.Allows(now_ns_);
    opinion = fine ? kFine : kAvoid;
  }
  return opinion == kFine;
}

bool HasUntriedReplica(const TesseraRoute& route, const LookupRow& row) {
  for (size_t i = 0; i < route.replicas(row.slot).count; ++i) {
    if (IsUntried(route, row, i)) return true;
  }
  return false;
}

}  // namespace tessera
