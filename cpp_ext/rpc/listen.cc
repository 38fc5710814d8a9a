#include "cpp_ext/rpc/listen.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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

Status Unavailable(const std::string& address, const std::string& what) {
  return Status(Code::kUnavailable, "address " + address + ": cannot be bound: " + what);
}

}  // namespace

Status CheckAddress(const std::string& address) {
  const std::string expected = "expected host:port with a port of 0 to 65535, or unix:path";
  if (address.rfind("unix:", 0) == 0 && address.size() > 5) {
    constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
    if (address.size() - 5 <= kMaxPath) return Status();
    return Status(Code::kInvalidArgument, "address " + address + ": the path of a Unix socket has at most " +
                                              std::to_string(kMaxPath) + " bytes, got " +
                                              std::to_string(address.size() - 5));
  }
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    const std::string port = address.substr(colon + 1);
    const bool is_number =
        !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && std::stoi(port) <= 65535) return Status();
  }
  return Status(Code::kInvalidArgument, "address " + address + ": " + expected);
}

Status ClaimUnixSocket(const std::string& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  address.copy(name.sun_path, sizeof(name.sun_path) - 1, 5);
  struct stat file;
  if (lstat(name.sun_path, &file) != 0) {
    if (errno == ENOENT) return Status();
    return Unavailable(address, strerror(errno));
  }
  if (!S_ISSOCK(file.st_mode)) return Unavailable(address, "the file exists and is not a socket");
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return Unavailable(address, strerror(errno));
  const int error = connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 ? 0 : errno;
  close(probe);
  // EAGAIN: somebody listens, but is slow to accept.
  if (error == 0 || error == EAGAIN) return Unavailable(address, "another process listens there");
  if (error != ECONNREFUSED && error != ENOENT) return Unavailable(address, strerror(error));
  if (unlink(name.sun_path) != 0 && errno != ENOENT) return Unavailable(address, strerror(errno));
  return Status();
}

Status MakeCredentials(const TlsTexts& tls, std::shared_ptr<grpc::ServerCredentials>* credentials) {
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
  if (!tls.client_ca.empty()) {
    Certificate ca;
    if (Status status = ReadCertificates("tls_client_ca", tls.client_ca, &ca); !status.ok()) return status;
  }
  grpc::SslServerCredentialsOptions options(tls.client_ca.empty()
                                                ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = tls.client_ca;
  options.pem_key_cert_pairs.push_back({tls.private_key, tls.certificate});
  *credentials = grpc::SslServerCredentials(options);
  return Status();
}

}  // namespace tessera
