// One shard server as the fan-out knows it, shared by every route that names it.
//
// Thread-safety: all members may be used from any thread.
#ifndef TESSERA_CPP_EXT_RPC_PEER_H_
#define TESSERA_CPP_EXT_RPC_PEER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "cpp_ext/rpc/outlier.h"
#include "cpp_ext/rpc/suspect.h"
#include "cpp_ext/rpc/transport.h"

namespace tessera {

struct Peer {
  // Constant after construction.
  std::string server_id;
  std::string address;                   // empty: in this process, or unknown
  std::shared_ptr<Transport> transport;  // null: its address is not known

  // Own synchronisation.
  Suspect suspect;
  Outlier outlier;
  // Said to be on its way out, or gone: a hint.
  std::atomic<bool> avoided{false};
  // What sub-requests that it has not answered ask of it (WorkOf), those in queues too.
  std::atomic<int64_t> work{0};
  std::atomic<int64_t> subrequests{0};
  std::atomic<int64_t> rpcs{0};
  std::atomic<int64_t> failures{0};   // of RPCs
  std::atomic<int64_t> in_flight{0};  // RPCs
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_PEER_H_
