#include "cpp_ext/rpc/certificates.h"

#include <grpc/grpc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <utility>

namespace tessera {
namespace {

template <typename T, void (*Free)(T*)>
struct Freeing {
  void operator()(T* object) const { Free(object); }
};
using Certificate = std::unique_ptr<X509, Freeing<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY, EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Freeing<BIO, BIO_free_all>>;

// A key that is locked by a passphrase is refused; OpenSSL would ask the terminal for it.
int NoPassphrase(char*, int, int, void*) { return -1; }

Bio Open(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

Status NoPem(const char* name, const char* expected) {
  ERR_clear_error();
  return Status(Code::kInvalidArgument, std::string(name) + ": expected " + expected + " in PEM");
}

// Reads every certificate of `text`, and gives the first.
Status ReadCertificates(const char* name, const std::string& text, Certificate* first) {
  const Bio bio = Open(text);
  for (;;) {
    Certificate one(PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr));
    if (one == nullptr) {
      const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
      if (*first == nullptr || !at_end) return NoPem(name, "certificates");
      ERR_clear_error();
      return Status();
    }
    if (*first == nullptr) *first = std::move(one);
  }
}

// INVALID_ARGUMENT as ServerCertificates::Set says.
Status CheckTexts(const TlsTexts& tls) {
  if (tls.certificate.empty() && tls.private_key.empty()) {
    if (tls.client_ca.empty()) return Status();
    return Status(Code::kInvalidArgument, "tls_client_ca: given without tls_certificate and tls_private_key");
  }
  if (tls.certificate.empty() || tls.private_key.empty()) {
    return Status(Code::kInvalidArgument, "tls_certificate and tls_private_key: expected both, got one");
  }
  Certificate certificate;
  if (Status status = ReadCertificates("tls_certificate", tls.certificate, &certificate); !status.ok()) return status;
  const Key key(PEM_read_bio_PrivateKey(Open(tls.private_key).get(), nullptr, &NoPassphrase, nullptr));
  if (key == nullptr) return NoPem("tls_private_key", "a private key without a passphrase");
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return Status(Code::kInvalidArgument, "tls_private_key: is not the key of tls_certificate");
  }
  if (tls.client_ca.empty()) return Status();
  Certificate ca;
  return ReadCertificates("tls_client_ca", tls.client_ca, &ca);
}

// What gRPC's own class does, which only takes texts that never change.
class FetchingCredentials final : public grpc::ServerCredentials {
 public:
  explicit FetchingCredentials(grpc_server_credentials* credentials) : credentials_(credentials) {}
  ~FetchingCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* const credentials_;
};

}  // namespace

Status ServerCertificates::Set(TlsTexts tls) {
  if (Status status = CheckTexts(tls); !status.ok()) return status;
  std::lock_guard<std::mutex> lock(mu_);
  if (!readers_.empty() && (tls.certificate.empty() || tls.client_ca.empty() != tls_.client_ca.empty())) {
    return Status(Code::kFailedPrecondition,
                  "certificates: TLS, and the demand for certificates of callers, can be "
                  "turned on or off only before the server starts");
  }
  tls_ = std::move(tls);
  ++generation_;
  return Status();
}

std::shared_ptr<grpc::ServerCredentials> ServerCertificates::MakeCredentials() {
  std::lock_guard<std::mutex> lock(mu_);
  if (tls_.certificate.empty()) return nullptr;
  readers_.push_back({this, 0});
  return std::make_shared<FetchingCredentials>(
      grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
          tls_.client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                 : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
          &ServerCertificates::Fetch, &readers_.back())));
}

grpc_ssl_certificate_config_reload_status ServerCertificates::Fetch(void* reader,
                                                                    grpc_ssl_server_certificate_config** config) {
  auto* const self = static_cast<Reader*>(reader);
  std::lock_guard<std::mutex> lock(self->owner->mu_);
  if (self->generation == self->owner->generation_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  self->generation = self->owner->generation_;
  const TlsTexts& tls = self->owner->tls_;
  const grpc_ssl_pem_key_cert_pair pair{tls.private_key.c_str(), tls.certificate.c_str()};
  // gRPC insists on roots even where it asks callers for no certificate, and never looks at them then.
  const std::string& roots = tls.client_ca.empty() ? tls.certificate : tls.client_ca;
  *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace tessera
