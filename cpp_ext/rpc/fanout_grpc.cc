// The fan-out of production: gRPC, table stores of this process, the real clock and timer.
#include <grpcpp/security/credentials.h>

#include <utility>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/grpc_transport.h"
#include "cpp_ext/rpc/local_transport.h"

namespace tessera {

Status Fanout::Create(std::shared_ptr<Pollers> pollers, FanoutOptions options, std::shared_ptr<Fanout>* fanout) {
  GrpcTransportOptions transport;
  transport.max_message_bytes = options.max_message_bytes;
  if (options.tls_root_ca.empty()) {
    transport.credentials = grpc::InsecureChannelCredentials();
  } else {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = options.tls_root_ca;
    tls.pem_cert_chain = options.tls_certificate;
    tls.pem_private_key = options.tls_private_key;
    transport.credentials = grpc::SslCredentials(tls);
  }
  FanoutParts parts;
  parts.now_ns = MonotonicNs;
  parts.timer = MakeThreadRetryTimer();
  parts.connect = [transport, raw = pollers.get()](const TargetSpec& target) {
    if (target.store != nullptr) return MakeLocalTransport(target.store, transport.max_message_bytes);
    return MakeGrpcTransport(target.address, transport, raw);
  };
  parts.threads = std::move(pollers);
  return Create(std::move(parts), std::move(options), fanout);
}

}  // namespace tessera
