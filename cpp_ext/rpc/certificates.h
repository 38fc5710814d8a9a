// The certificates of a server: checked before gRPC sees them, which says only "cannot be bound" of one that is none,
// and replaced while it serves.
#ifndef TESSERA_CPP_EXT_RPC_CERTIFICATES_H_
#define TESSERA_CPP_EXT_RPC_CERTIFICATES_H_

#include <grpc/grpc_security.h>
#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

// PEM texts. A certificate turns TLS on; a client CA also demands a certificate of callers.
struct TlsTexts {
  std::string certificate;
  std::string private_key;
  std::string client_ca;
};

// Thread-safe. Must outlive the servers that its credentials were given to.
class ServerCertificates {
 public:
  // Connections that are made from now on get these; others keep theirs.
  // INVALID_ARGUMENT: a text is no PEM, the key is not that of the certificate, one without the other; names the text.
  // FAILED_PRECONDITION: credentials were made, and TLS or the demand for certificates of callers would begin or end.
  // Nothing has changed after an error.
  Status Set(TlsTexts tls);

  // Credentials for one address, null without a certificate.
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials();

 private:
  // Of one address: gRPC asks before every handshake whether there is something new.
  struct Reader {
    ServerCertificates* owner;
    uint64_t generation;
  };
  static grpc_ssl_certificate_config_reload_status Fetch(void* reader, grpc_ssl_server_certificate_config** config);

  std::mutex mu_;
  TlsTexts tls_;                // guarded by mu_
  uint64_t generation_ = 0;     // of tls_; guarded by mu_
  std::deque<Reader> readers_;  // gRPC keeps pointers; guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_CERTIFICATES_H_
