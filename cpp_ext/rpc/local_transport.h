// A transport to a table store of this process: no sockets, the answer comes before Start returns.
#ifndef TESSERA_CPP_EXT_RPC_LOCAL_TRANSPORT_H_
#define TESSERA_CPP_EXT_RPC_LOCAL_TRANSPORT_H_

#include <cstddef>
#include <memory>

#include "cpp_ext/rpc/transport.h"

namespace tessera {

class TableStore;

std::shared_ptr<Transport> MakeLocalTransport(std::shared_ptr<TableStore> store, size_t max_message_bytes);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LOCAL_TRANSPORT_H_
