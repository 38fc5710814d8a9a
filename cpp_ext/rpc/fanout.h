// The client of the shard servers: makes routes, runs lookups over them, counts what happens.
//
// Knows no gRPC: servers are reached through Transport, time through a clock and a RetryTimer, so that tests need
// neither sockets nor sleeping.
//
// Thread-safety: all methods may be called from any thread unless they say otherwise.
#ifndef TESSERA_CPP_EXT_RPC_FANOUT_H_
#define TESSERA_CPP_EXT_RPC_FANOUT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/in_flight.h"
#include "cpp_ext/rpc/lookup_size.h"
#include "cpp_ext/rpc/peer.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/retry_budget.h"
#include "cpp_ext/rpc/retry_timer.h"
#include "cpp_ext/rpc/route.h"
#include "cpp_ext/rpc/transport.h"

namespace tessera {

class Pollers;

struct FanoutOptions {
  // A sub-request without an answer after this is sent to a replica too. More than 0.
  int64_t retry_delay_ns = 0;
  // Retries and hedges that may be spent before successes must earn new ones. More than 0.
  uint32_t retry_budget_tokens = 0;
  // Bounds a request and its response, each. More than 0.
  size_t max_message_bytes = 0;
  // While so many RPCs of a route are in flight to a server, further ones wait and are merged into the next. More use
  // more CPU time, fewer let a lookup wait longer. 0: nothing waits, nothing is merged.
  uint32_t max_in_flight_lookups_per_server = 0;
  // Files in PEM, looked at again every tls_poll_s seconds (0: never). A root CA turns TLS on; certificate and key come
  // together and need it.
  std::string tls_root_ca_file;
  std::string tls_certificate_file;
  std::string tls_private_key_file;
  double tls_poll_s = 0;

  // INVALID_ARGUMENT names what cannot be.
  Status Check() const;
};

// What a fan-out is made of. Tests give their own.
struct FanoutParts {
  // Nanoseconds of CLOCK_MONOTONIC.
  std::function<int64_t()> now_ns;
  std::unique_ptr<RetryTimer> timer;
  // Makes the transport to a server that has an address or a store.
  std::function<std::shared_ptr<Transport>(const TargetSpec&)> connect;
  // The threads that run the calls, let go by Stop. May be null.
  std::shared_ptr<void> threads;
};

struct FanoutServerStats {
  int64_t subrequests = 0;
  int64_t rpcs = 0;
  int64_t failures = 0;  // of RPCs
  int64_t in_flight = 0;
  // Avoided at the moment, for what it did lately.
  bool suspect = false;
  // Likewise, because it does much worse than the others.
  bool ejected = false;
  // Likewise, because the caller of Avoid says so.
  bool avoided = false;
  int64_t ejections = 0;
};

// Counted since the start.
struct FanoutStats {
  int64_t lookups = 0;
  // What lookups asked of one server each: first ones, retries and hedges alike.
  int64_t subrequests = 0;
  // RPCs that carried them; subrequests / rpcs is the mean number of members.
  int64_t rpcs = 0;
  // Sub-requests that shared an RPC with others.
  int64_t merged = 0;
  // Sub-requests made because another failed, and because another was late.
  int64_t retries = 0;
  int64_t hedges = 0;
  // Lookups that ended with another code than OK.
  int64_t failures = 0;
  // Servers found to do much worse than the others.
  int64_t ejections = 0;
  // By server id; servers of living routes.
  std::map<std::string, FanoutServerStats> servers;
  // By model: the newest epoch that a refusal named, of those newer than the refused request's.
  std::map<std::string, uint64_t> newest_epochs;
  // By model: the oldest epoch of a living route; a request keeps its route alive.
  std::map<std::string, uint64_t> oldest_epochs;
};

class Fanout : public std::enable_shared_from_this<Fanout> {
 public:
  // Calls run on `pollers`, which must have been started and outlive Stop.
  // INVALID_ARGUMENT: names the option.
  static Status Create(std::shared_ptr<Pollers> pollers, FanoutOptions options, std::shared_ptr<Fanout>* fanout);
  static Status Create(FanoutParts parts, FanoutOptions options, std::shared_ptr<Fanout>* fanout);

  // Stops. REQUIRES: if this is the last owner of the pollers, not on a poller thread unless Stop has run.
  ~Fanout();
  Fanout(const Fanout&) = delete;
  Fanout& operator=(const Fanout&) = delete;

  // Connections to servers of earlier routes that still live are shared (by id, address and store).
  // INVALID_ARGUMENT: names the field. FAILED_PRECONDITION: stopped.
  Status MakeRoute(RouteSpec spec, Ref<TesseraRoute>* route);

  FanoutStats Stats() const;

  // By model: the newest placement document that a refusal carried, of those newer than the refused request's epoch.
  // Bounded: one document a model.
  std::map<std::string, std::string> NewestPlacements() const;

  // The newest epoch that a refusal named, if it is newer than the route's; else 0.
  uint64_t NewerEpoch(const TesseraRoute& route) const;
  // How often what NewestPlacements returns has changed.
  int64_t placements_told() const { return placements_told_.load(std::memory_order_relaxed); }

  // Asks these servers only where no other that is well holds the rows: they are said to be on their way out, or gone.
  void Avoid(std::set<std::string> server_ids);

  const FanoutOptions& options() const { return options_; }
  // Of the RPCs of a route to `model`.
  LookupLimits limits(const std::string& model) const { return {model.size(), options_.max_message_bytes}; }

  // Refuses new lookups with UNAVAILABLE, cancels those in flight and waits for the last of their calls.
  // REQUIRES: not called on a poller thread or from a lookup's `done`. May be called twice.
  void Stop();

 private:
  friend struct ::TesseraLookup;
  friend struct ::TesseraRoute;
  friend class LookupCall;
  Fanout(FanoutParts parts, FanoutOptions options);

  std::shared_ptr<Peer> FindPeer(const TargetSpec& target);
  // `placement` is the document of `epoch`; may be empty.
  void NoteEpoch(const std::string& model, uint64_t epoch, std::string_view placement);
  void RouteBegins(const std::string& model, uint64_t epoch);
  void RouteEnds(const std::string& model, uint64_t epoch);
  // Once an interval, ejects servers that do much worse than the others. Never waits.
  void LookForOutliers(int64_t now_ns);

  // Constant after construction.
  const FanoutOptions options_;
  const std::function<int64_t()> now_ns_;
  const std::unique_ptr<RetryTimer> timer_;

  // Own synchronisation.
  RetryBudget budget_;
  InFlight in_flight_;
  std::atomic<int64_t> lookups_{0};
  std::atomic<int64_t> subrequests_{0};
  std::atomic<int64_t> rpcs_{0};
  std::atomic<int64_t> merged_{0};
  std::atomic<int64_t> retries_{0};
  std::atomic<int64_t> hedges_{0};
  std::atomic<int64_t> failures_{0};
  std::atomic<int64_t> ejections_{0};
  std::atomic<int64_t> placements_told_{0};
  std::atomic<int64_t> outliers_due_ns_{0};  // 0: no interval has begun

  // Guarded by mu_; never taken on the way of a lookup that goes well.
  mutable std::mutex mu_;
  std::function<std::shared_ptr<Transport>(const TargetSpec&)> connect_;
  std::shared_ptr<void> threads_;
  std::map<std::string, std::weak_ptr<Peer>> peers_;
  std::set<std::string> avoided_;
  struct Newest {
    uint64_t epoch = 0;
    uint64_t placement_epoch = 0;
    std::string placement;
  };
  std::map<std::string, Newest> newest_;
  std::map<std::string, std::map<uint64_t, int64_t>> route_counts_;
};

// The one table of the process; it serves the routes of every Fanout.
const TesseraFanoutApi* FanoutApi();

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_FANOUT_H_
