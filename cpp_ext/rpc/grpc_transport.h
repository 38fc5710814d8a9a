// Transports to servers over gRPC, and to table stores in this process.
//
// Thread-safety: all functions may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_GRPC_TRANSPORT_H_
#define TESSERA_CPP_EXT_RPC_GRPC_TRANSPORT_H_

#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "cpp_ext/rpc/poller.h"
#include "cpp_ext/rpc/transport.h"

namespace tessera {

struct GrpcTransportOptions {
  size_t max_message_bytes = 0;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
};

// Starts connecting to `address` at once. `pollers` runs the calls and must outlive them; a call is not started on
// queues that have been shut down.
std::shared_ptr<Transport> MakeGrpcTransport(const std::string& address, const GrpcTransportOptions& options,
                                             Pollers* pollers);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_GRPC_TRANSPORT_H_
