#include "cpp_ext/rpc/replica_choice.h"

#include <vector>

namespace tessera {
namespace {

struct Known {
  bool asked = false;
  uint8_t opinion = 0;
  int64_t work = 0;
};

// By target; kept by the thread so that a plan allocates nothing.
thread_local std::vector<Known> known;

bool IsUntried(const TesseraRoute& route, const LookupRow& row, size_t replica) {
  const size_t target = route.replicas(row.slot).begin[replica];
  return (row.tried >> replica & 1) == 0 && route.target(target).peer->transport != nullptr;
}

// xorshift; needs no more than that threads differ.
uint32_t Random() {
  thread_local uint32_t state = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(&state) >> 4) | 1;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

}  // namespace

ReplicaChoice::ReplicaChoice(const TesseraRoute& route, int64_t now_ns) : route_(route), now_ns_(now_ns) {
  known.assign(route.target_count(), Known());
}

int ReplicaChoice::Best(const LookupRow& row) {
  const TesseraRoute::Replicas replicas = route_.replicas(row.slot);
  int first = -1, other = -1;
  uint32_t others = 0;
  Opinion best = kSuspect;
  for (size_t i = 0; i < replicas.count; ++i) {
    if (!IsUntried(route_, row, i)) continue;
    const Opinion opinion = OpinionOf(replicas.begin[i]);
    if (first < 0 || opinion < best) {
      first = static_cast<int>(i);
      best = opinion;
      others = 0;
    } else if (opinion == best && (++others == 1 || Random() % others == 0)) {
      other = static_cast<int>(i);
    }
  }
  if (others == 0) return first;
  return known[replicas.begin[other]].work < known[replicas.begin[first]].work ? other : first;
}

ReplicaChoice::Opinion ReplicaChoice::OpinionOf(size_t target) {
  Known& server = known[target];
  if (!server.asked) {
    const TesseraRoute::Target& asked = route_.target(target);
    Peer& peer = *asked.peer;
    server.asked = true;
    server.work = peer.work.load(std::memory_order_relaxed);
    const bool suspected = peer.suspect.suspected() || asked.not_owner.suspected();
    if (peer.avoided.load(std::memory_order_relaxed)) {
      // Not worth a probe: what said so will say when it is back.
      server.opinion = suspected ? kSuspect : kAvoided;
    } else if (!(peer.suspect.Allows(now_ns_) && asked.not_owner.Allows(now_ns_))) {
      server.opinion = kSuspect;
    } else if (suspected) {
      server.opinion = kProbed;
    } else {
      server.opinion = peer.outlier.ejected(now_ns_) ? kEjected : kFine;
    }
  }
  return static_cast<Opinion>(server.opinion);
}

bool HasUntriedReplica(const TesseraRoute& route, const LookupRow& row) {
  for (size_t i = 0; i < route.replicas(row.slot).count; ++i) {
    if (IsUntried(route, row, i)) return true;
  }
  return false;
}

}  // namespace tessera
