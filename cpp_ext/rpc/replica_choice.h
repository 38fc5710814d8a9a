// Which replica a row is asked from next.
#ifndef TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_
#define TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_

#include <cstddef>
#include <cstdint>

#include "cpp_ext/rpc/lookup_rows.h"
#include "cpp_ext/rpc/route.h"

namespace tessera {

// The choices of one plan: a suspect server that lets a probe through lets it through for all rows of the plan.
// Thread-safety: at most one lives per thread at a time; `route` must outlive it.
class ReplicaChoice {
 public:
  ReplicaChoice(const TesseraRoute& route, int64_t now_ns);

  // Returns the best replica of the row's slot that was not tried yet and can be reached, -1 if there is none: the
  // first that is not suspect, or else the first.
  int Best(const LookupRow& row);

 private:
  bool IsFine(size_t target);

  const TesseraRoute& route_;
  const int64_t now_ns_;
};

// Whether Best would find one.
bool HasUntriedReplica(const TesseraRoute& route, const LookupRow& row);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_REPLICA_CHOICE_H_
