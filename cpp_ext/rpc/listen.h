// Where a server listens: checks of addresses before gRPC sees them, and Unix sockets that a dead process left behind.
//
// gRPC takes a missing port for 443, and removes the socket file of a server that still runs.
//
// Thread-safety: all functions may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_LISTEN_H_
#define TESSERA_CPP_EXT_RPC_LISTEN_H_

#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

// One address of a server.
struct ListenAddress {
  // host:port, where port 0 takes any free one and an IPv6 host stands in brackets, or unix:path.
  std::string address;
  // Without TLS, whatever the server's certificate.
  bool plain = false;

  bool is_unix() const { return address.rfind("unix:", 0) == 0; }
};

// INVALID_ARGUMENT: neither host:port nor unix:path, or a path that no socket can have; names the address.
Status CheckAddress(const std::string& address);

// Removes the socket file of `address`, a Unix socket, if nobody listens there any more; nothing to do without a file.
// UNAVAILABLE: a process listens there, the file is no socket, or it cannot be removed; names the address.
Status ClaimUnixSocket(const std::string& address);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_LISTEN_H_
