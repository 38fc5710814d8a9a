// grpc.health.v1.Health, answered without Python: statuses are set from outside; Check reads one, Watch is sent each
// change.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_HEALTH_H_
#define TESSERA_CPP_EXT_RPC_HEALTH_H_

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/server_stream.h"

namespace tessera {

constexpr char kHealthCheckMethod[] = "/grpc.health.v1.Health/Check";
constexpr char kHealthWatchMethod[] = "/grpc.health.v1.Health/Watch";

// Must outlive the server that it is added to.
class HealthService final : private StreamHandler {
 public:
  // The numbers of grpc.health.v1.HealthCheckResponse.ServingStatus.
  enum class Serving { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

  // Streams of Watch at once; more are refused. Clients that check health by themselves open one a connection.
  static constexpr size_t kMaxWatchers = 1024;

  HealthService();

  // Watchers of `service` are told if it changes. Without effect after Drain.
  void Set(const std::string& service, Serving status);
  // Turns every service to NOT_SERVING, for good.
  void Drain();

  // Check: NOT_FOUND for a service whose status was never set.
  const TesseraHandler* check_handler() const { return &check_; }
  // Watch: the status now and after each change; one whose status was never set is SERVICE_UNKNOWN.
  StreamHandler* watch_handler() { return this; }

 private:
  struct Watcher {
    Ref<ServerStream> stream;
    std::string service;
  };

  void Check(const TesseraCallApi* api, TesseraCall* call) const;
  // The stream's first message, the only one that is read.
  void OnMessage(ServerStream* stream, std::string_view message) override;
  void OnHalfClose(ServerStream* stream) override;
  void OnEnd(ServerStream* stream) override;
  // REQUIRE: mutex_ is held.
  Serving StatusOf(const std::string& service) const;
  void SetOne(const std::string& service, Serving status);

  TesseraHandler check_;
  mutable std::mutex mutex_;
  std::map<std::string, Serving> statuses_;              // guarded by mutex_
  std::unordered_map<ServerStream*, Watcher> watchers_;  // guarded by mutex_
  bool draining_ = false;                                // guarded by mutex_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_HEALTH_H_
