#include "cpp_ext/rpc/server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cpp_ext/base/clock.h"
#include "cpp_ext/rpc/server_call.h"

namespace tessera {
namespace {

// How many requests for a call each method keeps open on each queue: while one call runs on the poller, the next ones
// are matched without waiting for it.
constexpr int kOpenRequestsPerQueue = 4;

// gRPC takes a missing port for 443 and cuts large ones to 16 bits: neither is what was meant.
Status CheckAddress(const std::string& address) {
  if (address.rfind("unix:", 0) == 0 && address.size() > 5) return Status();
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    const std::string port = address.substr(colon + 1);
    const bool is_number =
        !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && std::stoi(port) <= 65535) return Status();
  }
  return Status(Code::kInvalidArgument,
                "address " + address + ": expected host:port with a port of 0 to 65535, or unix:path");
}

}  // namespace

class Server::Impl {
 public:
  explicit Impl(ServerOptions options) : options_(std::move(options)) {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    const size_t count = options_.pollers > 0 ? static_cast<size_t>(options_.pollers) : cores;
    std::vector<std::unique_ptr<grpc::CompletionQueue>> queues;
    for (size_t i = 0; i < count; ++i) {
      std::unique_ptr<grpc::ServerCompletionQueue> queue = builder_.AddCompletionQueue();
      server_queues_.push_back(queue.get());
      queues.push_back(std::move(queue));
    }
    pollers_ = std::make_shared<Pollers>(std::move(queues), options_.busy_poll_ns);
  }

  Status Add(const std::string& method, const TesseraHandler* handler, bool cancellable) {
    if (handler->abi_version != TESSERA_ABI_VERSION) {
      return Status(Code::kFailedPrecondition, "handler of " + method + ": has ABI version " +
                                                   std::to_string(handler->abi_version) + ", expected " +
                                                   std::to_string(TESSERA_ABI_VERSION) + "; rebuild the native core");
    }
    if (started_) return Status(Code::kFailedPrecondition, "method " + method + ": the server has started");
    if (method.empty() || method[0] != '/' || method.find('/', 1) == std::string::npos) {
      return Status(Code::kInvalidArgument, "method: got \"" + method + "\", expected /package.Service/Method");
    }
    names_.push_back(method);  // gRPC keeps the pointer
    pollers_->SetBurst(handler->burst, handler->context);
    handlers_.push_back({handler, cancellable});
    service_.AddRawMethod(names_.back().c_str());
    return Status();
  }

  void AcceptFrequentPings() { options_.accept_frequent_pings = true; }

  Status Start(int* port) {
    if (started_) return Status(Code::kFailedPrecondition, "the server has started already");
    if (Status status = CheckAddress(options_.address); !status.ok()) return status;
    started_ = true;
    std::shared_ptr<grpc::ServerCredentials> credentials;
    if (Status status = Credentials(&credentials); !status.ok()) return status;
    int bound_port = -1;
    builder_.AddListeningPort(options_.address, credentials, &bound_port);
    builder_.RegisterService(&service_);
    builder_.SetMaxReceiveMessageSize(options_.max_message_bytes);
    builder_.SetMaxSendMessageSize(options_.max_message_bytes);
    // A second process on the same port would silently take half of the calls.
    builder_.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    if (options_.accept_frequent_pings) {
      builder_.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
      builder_.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
      builder_.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    }
    server_ = builder_.BuildAndStart();
    const bool is_unix = options_.address.rfind("unix:", 0) == 0;
    if (server_ == nullptr || (!is_unix && bound_port <= 0)) {
      return Status(Code::kUnavailable, "address " + options_.address + ": cannot be bound");
    }
    *port = is_unix ? 0 : bound_port;
    for (grpc::ServerCompletionQueue* queue : server_queues_) {
      for (size_t i = 0; i < handlers_.size(); ++i) {
        method_queues_.emplace_back(&service_, static_cast<int>(i), handlers_[i].handler, handlers_[i].cancellable,
                                    queue, &counters_, options_.max_concurrent_calls, options_.default_deadline_ns,
                                    &shutting_down_);
      }
    }
    for (MethodQueue& method : method_queues_) {
      for (int i = 0; i < kOpenRequestsPerQueue; ++i) method.RequestNext();
    }
    pollers_->Start();
    return Status();
  }

  bool Drain(int64_t timeout_ns) {
    std::lock_guard<std::mutex> lock(shutdown_mutex_);
    if (server_ == nullptr || drained_) return all_ended_;
    counters_.drain_deadline_ns.store(MonotonicNs() + timeout_ns, std::memory_order_relaxed);
    shutting_down_.store(true, std::memory_order_release);
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::nanoseconds(timeout_ns));
    drained_ = true;
    // A handler may still be busy with a call that gRPC has ended.
    all_ended_ = counters_.in_flight.load(std::memory_order_acquire) == 0 &&
                 counters_.cut_off.load(std::memory_order_relaxed) == 0;
    return all_ended_;
  }

  void Stop() {
    started_ = true;
    Drain(0);
    // A handler that ends its call puts the answer on a queue, which must not be shut down before.
    counters_.open.WaitUntilNone();
    pollers_->ShutdownAndJoin();
  }

  const std::shared_ptr<Pollers>& pollers() const { return pollers_; }

  ServerStats Stats() const {
    ServerStats stats;
    stats.calls_started = counters_.started.load(std::memory_order_relaxed);
    stats.calls_finished = counters_.finished.load(std::memory_order_relaxed);
    stats.calls_in_flight = counters_.in_flight.load(std::memory_order_relaxed);
    stats.calls_failed = counters_.failed.load(std::memory_order_relaxed);
    stats.calls_refused = counters_.refused.load(std::memory_order_relaxed);
    return stats;
  }

 private:
  Status Credentials(std::shared_ptr<grpc::ServerCredentials>* credentials) const {
    if (options_.tls_certificate.empty() && options_.tls_private_key.empty()) {
      if (!options_.tls_client_ca.empty()) {
        return Status(Code::kInvalidArgument, "tls_client_ca: given without tls_certificate and tls_private_key");
      }
      *credentials = grpc::InsecureServerCredentials();
      return Status();
    }
    if (options_.tls_certificate.empty() || options_.tls_private_key.empty()) {
      return Status(Code::kInvalidArgument, "tls_certificate and tls_private_key: expected both, got one");
    }
    grpc::SslServerCredentialsOptions tls(options_.tls_client_ca.empty()
                                              ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                              : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    tls.pem_root_certs = options_.tls_client_ca;
    tls.pem_key_cert_pairs.push_back({options_.tls_private_key, options_.tls_certificate});
    *credentials = grpc::SslServerCredentials(tls);
    return Status();
  }

  ServerOptions options_;
  std::deque<std::string> names_;
  struct Method {
    const TesseraHandler* handler;
    bool cancellable;
  };
  std::vector<Method> handlers_;
  RawService service_;
  grpc::ServerBuilder builder_;
  std::vector<grpc::ServerCompletionQueue*> server_queues_;  // owned by pollers_
  ServerCounters counters_;
  std::atomic<bool> shutting_down_{false};
  std::deque<MethodQueue> method_queues_;  // a deque: slots keep pointers into it
  std::shared_ptr<Pollers> pollers_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex shutdown_mutex_;
  bool drained_ = false;   // guarded by shutdown_mutex_
  bool all_ended_ = true;  // guarded by shutdown_mutex_
  std::atomic<bool> started_{false};
};

Server::Server(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Server::~Server() { Stop(); }
Status Server::Add(const std::string& method, const TesseraHandler* handler, bool cancellable) {
  return impl_->Add(method, handler, cancellable);
}
void Server::AcceptFrequentPings() { impl_->AcceptFrequentPings(); }
Status Server::Start(int* port) { return impl_->Start(port); }
bool Server::Drain(int64_t timeout_ns) { return impl_->Drain(timeout_ns); }
void Server::Stop() { impl_->Stop(); }
const std::shared_ptr<Pollers>& Server::pollers() const { return impl_->pollers(); }
ServerStats Server::Stats() const { return impl_->Stats(); }

}  // namespace tessera
