// The fan-out of production: gRPC, table stores of this process, the real clock and timer.
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/grpc_transport.h"
#include "cpp_ext/rpc/local_transport.h"

namespace tessera {

namespace {

constexpr double kNeverS = 10 * 365 * 86400.0;

// Follows the files: a connection is made with what they hold then.
std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const FanoutOptions& options) {
  const double poll_s = options.tls_poll_s > 0 ? std::min(options.tls_poll_s, kNeverS) : kNeverS;
  grpc::experimental::TlsChannelCredentialsOptions tls;
  tls.set_certificate_provider(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.tls_private_key_file, options.tls_certificate_file, options.tls_root_ca_file,
      static_cast<unsigned>(std::ceil(poll_s))));
  tls.watch_root_certs();
  if (!options.tls_certificate_file.empty()) tls.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(tls);
}

}  // namespace

Status Fanout::Create(std::shared_ptr<Pollers> pollers, FanoutOptions options, std::shared_ptr<Fanout>* fanout) {
  if (Status status = options.Check(); !status.ok()) return status;  // gRPC ends the process over half a key pair
  GrpcTransportOptions transport;
  transport.max_message_bytes = options.max_message_bytes;
  transport.credentials =
      options.tls_root_ca_file.empty() ? grpc::InsecureChannelCredentials() : CredentialsOf(options);
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
