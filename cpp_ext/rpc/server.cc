#include "cpp_ext/rpc/server.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
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

// A drain refuses calls until none has come for kQuietNs, or for kRefuseNs if they do not end.
constexpr int64_t kQuietNs = 50'000'000;
constexpr int64_t kRefuseNs = 1'000'000'000;

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

  Status Add(const std::string& method, const TesseraHandler* handler, MethodTraits traits) {
    if (handler->abi_version != TESSERA_ABI_VERSION) {
      return Status(Code::kFailedPrecondition, "handler of " + method + ": has ABI version " +
                                                   std::to_string(handler->abi_version) + ", expected " +
                                                   std::to_string(TESSERA_ABI_VERSION) + "; rebuild the native core");
    }
    if (Status status = CheckMethod(method); !status.ok()) return status;
    pollers_->SetBurst(handler->burst, handler->context);
    methods_.push_back({service_.AddUnary(names_.back().c_str()), handler, traits});
    return Status();
  }

  Status AddStream(const std::string& method, StreamHandler* handler, size_t max_streams) {
    if (Status status = CheckMethod(method); !status.ok()) return status;
    const int index = service_.AddStream(names_.back().c_str());
    // They are rare: one queue is enough for each.
    grpc::ServerCompletionQueue* queue = server_queues_[static_cast<size_t>(index) % server_queues_.size()];
    stream_methods_.emplace_back(&service_, index, handler, max_streams, queue, &counters_, &shutting_down_);
    return Status();
  }

  void AcceptFrequentPings() { options_.accept_frequent_pings = true; }

  Status Start(std::vector<int>* ports) {
    if (started_) return Status(Code::kFailedPrecondition, "the server has started already");
    if (Status status = CheckOptions(); !status.ok()) return status;
    started_ = true;
    if (Status status = certificates_.Set(std::move(options_.tls)); !status.ok()) return status;
    std::vector<int> bound(options_.listen.size(), -1);
    for (size_t i = 0; i < bound.size(); ++i) {
      const ListenAddress& listen = options_.listen[i];
      if (listen.is_unix()) {
        if (Status status = ClaimUnixSocket(listen.address); !status.ok()) return status;
      }
      std::shared_ptr<grpc::ServerCredentials> credentials = listen.plain ? nullptr : certificates_.MakeCredentials();
      if (credentials == nullptr) credentials = grpc::InsecureServerCredentials();
      builder_.AddListeningPort(listen.address, std::move(credentials), &bound[i]);
    }
    builder_.RegisterService(&service_);
    SetArguments();
    server_ = builder_.BuildAndStart();
    for (size_t i = 0; i < bound.size(); ++i) {
      const ListenAddress& listen = options_.listen[i];
      if (bound[i] <= 0) return Status(Code::kUnavailable, "address " + listen.address + ": cannot be bound");
      ports->push_back(listen.is_unix() ? 0 : bound[i]);
    }
    if (server_ == nullptr) return Status(Code::kUnavailable, "the server cannot be started");
    RequestCalls();
    pollers_->Start();
    return Status();
  }

  bool Drain(int64_t timeout_ns) {
    std::lock_guard<std::mutex> lock(shutdown_mutex_);
    if (server_ == nullptr || drained_) return all_ended_;
    const int64_t deadline_ns = MonotonicNs() + timeout_ns;
    counters_.drain_deadline_ns.store(deadline_ns, std::memory_order_relaxed);
    counters_.draining.store(true, std::memory_order_relaxed);
    RefuseUntilQuiet(deadline_ns);
    timeout_ns = std::max<int64_t>(0, deadline_ns - MonotonicNs());
    shutting_down_.store(true, std::memory_order_release);
    for (StreamMethod& method : stream_methods_) {
      method.FinishAll(Status(Code::kUnavailable, "the server is shutting down"));
    }
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::nanoseconds(timeout_ns));
    drained_ = true;
    // A handler may still be busy with a call that gRPC has ended.
    all_ended_ = counters_.in_flight.load(std::memory_order_acquire) == 0 &&
                 counters_.cut_off.load(std::memory_order_relaxed) == 0;
    return all_ended_;
  }

  Status Stop(int64_t timeout_ns) {
    started_ = true;
    Drain(0);
    // A handler that ends its call puts the answer on a queue, which must not be shut down before.
    if (!counters_.open.WaitUntilNone(timeout_ns)) {
      return Status(Code::kDeadlineExceeded,
                    "stopping the server: handlers have not ended calls that were cancelled: " + Handling());
    }
    pollers_->ShutdownAndJoin();
    return Status();
  }

  Status SetCertificates(TlsTexts tls) {
    if (!started_) return Status(Code::kFailedPrecondition, "certificates: the server has not started yet");
    return certificates_.Set(std::move(tls));
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
  struct Method {
    int index;
    const TesseraHandler* handler;
    MethodTraits traits;
  };

  // gRPC cancels calls that come while it shuts down. So first they are told UNAVAILABLE, which sends clients
  // elsewhere, until those in progress have ended and no more come, or clients go on and on.
  void RefuseUntilQuiet(int64_t deadline_ns) {
    const int64_t give_up_ns = MonotonicNs() + kRefuseNs;
    int64_t started = -1;
    int64_t quiet_since_ns = 0;
    for (int64_t now_ns = MonotonicNs(); now_ns < deadline_ns; now_ns = MonotonicNs()) {
      const int64_t now_started = counters_.started.load(std::memory_order_relaxed);
      if (now_started != started) quiet_since_ns = now_ns;
      started = now_started;
      const bool none = counters_.in_flight.load(std::memory_order_acquire) == 0;
      if (none && (now_ns - quiet_since_ns >= kQuietNs || now_ns >= give_up_ns)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  // Keeps the name if it is good: gRPC keeps the pointer.
  Status CheckMethod(const std::string& method) {
    if (started_) return Status(Code::kFailedPrecondition, "method " + method + ": the server has started");
    if (method.empty() || method[0] != '/' || method.find('/', 1) == std::string::npos) {
      return Status(Code::kInvalidArgument, "method: got \"" + method + "\", expected /package.Service/Method");
    }
    if (std::find(names_.begin(), names_.end(), method) != names_.end()) {
      return Status(Code::kFailedPrecondition, "method " + method + ": is answered already");
    }
    names_.push_back(method);
    return Status();
  }

  Status CheckOptions() const {
    if (options_.listen.empty()) return Status(Code::kInvalidArgument, "address: expected at least one, got none");
    for (const ListenAddress& listen : options_.listen) {
      if (Status status = CheckAddress(listen.address); !status.ok()) return status;
    }
    if (options_.max_message_bytes <= 0) {
      return Status(Code::kInvalidArgument, "max_message_bytes: got " + std::to_string(options_.max_message_bytes) +
                                                ", expected 1 to 2147483647");
    }
    for (const auto& [name, value] : options_.channel_arguments) {
      if (name.empty()) return Status(Code::kInvalidArgument, "channel argument without a name");
    }
    return Status();
  }

  void SetArguments() {
    // Of two equal names gRPC takes either; so each is given once.
    std::map<std::string, std::variant<int, std::string>> arguments;
    arguments[GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH] = options_.max_message_bytes;
    arguments[GRPC_ARG_MAX_SEND_MESSAGE_LENGTH] = options_.max_message_bytes;
    // A second process on the same port would silently take half of the calls.
    arguments[GRPC_ARG_ALLOW_REUSEPORT] = 0;
    if (options_.accept_frequent_pings) {
      arguments[GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS] = 1;
      arguments[GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS] = 500;
      arguments[GRPC_ARG_HTTP2_MAX_PING_STRIKES] = 0;
    }
    for (const auto& [name, value] : options_.channel_arguments) arguments[name] = value;
    for (const auto& [name, value] : arguments) {
      std::visit([&, &name = name](const auto& content) { builder_.AddChannelArgument(name, content); }, value);
    }
  }

  void RequestCalls() {
    for (grpc::ServerCompletionQueue* queue : server_queues_) {
      for (const Method& method : methods_) {
        method_queues_.emplace_back(&service_, method.index, method.handler, method.traits, queue, &counters_,
                                    options_.max_concurrent_calls, options_.default_deadline_ns, &shutting_down_);
      }
    }
    for (MethodQueue& method : method_queues_) {
      for (int i = 0; i < kOpenRequestsPerQueue; ++i) method.RequestNext();
    }
    for (StreamMethod& method : stream_methods_) method.RequestNext();
  }

  // What handlers have in hand: "3 of /package.Service/Method, ...".
  std::string Handling() const {
    std::map<int, int64_t> calls;
    for (const MethodQueue& method : method_queues_) calls[method.index] += method.handling.load();
    std::string text;
    for (const auto& [index, count] : calls) {
      if (count == 0) continue;
      text += (text.empty() ? "" : ", ") + std::to_string(count) + " of " + names_[static_cast<size_t>(index)];
    }
    return text.empty() ? "none is known, only streams" : text;
  }

  ServerOptions options_;
  ServerCertificates certificates_;
  std::deque<std::string> names_;  // by index of the method
  std::vector<Method> methods_;
  RawService service_;
  grpc::ServerBuilder builder_;
  std::vector<grpc::ServerCompletionQueue*> server_queues_;  // owned by pollers_
  ServerCounters counters_;
  std::atomic<bool> shutting_down_{false};
  std::deque<MethodQueue> method_queues_;    // a deque: slots keep pointers into it
  std::deque<StreamMethod> stream_methods_;  // likewise
  std::shared_ptr<Pollers> pollers_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex shutdown_mutex_;
  bool drained_ = false;   // guarded by shutdown_mutex_
  bool all_ended_ = true;  // guarded by shutdown_mutex_
  std::atomic<bool> started_{false};
};

Server::Server(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Server::~Server() {
  // A handler that ends its call one day must find it.
  if (!Stop().ok()) static_cast<void>(impl_.release());
}
Status Server::Add(const std::string& method, const TesseraHandler* handler, MethodTraits traits) {
  return impl_->Add(method, handler, traits);
}
Status Server::AddStream(const std::string& method, StreamHandler* handler, size_t max_streams) {
  return impl_->AddStream(method, handler, max_streams);
}
void Server::AcceptFrequentPings() { impl_->AcceptFrequentPings(); }
Status Server::SetCertificates(TlsTexts tls) { return impl_->SetCertificates(std::move(tls)); }
Status Server::Start(std::vector<int>* ports) { return impl_->Start(ports); }
bool Server::Drain(int64_t timeout_ns) { return impl_->Drain(timeout_ns); }
Status Server::Stop(int64_t timeout_ns) { return impl_->Stop(timeout_ns); }
const std::shared_ptr<Pollers>& Server::pollers() const { return impl_->pollers(); }
ServerStats Server::Stats() const { return impl_->Stats(); }

}  // namespace tessera
