#include "cpp_ext/rpc/fanout.h"

#include <utility>

#include "cpp_ext/rpc/lookup.h"

namespace tessera {

Status FanoutOptions::Check() const {
  if (retry_delay_ns <= 0) {
    return Status(Code::kInvalidArgument,
                  "fan-out: retry_delay is " + std::to_string(retry_delay_ns) + " ns, expected more than 0");
  }
  if (retry_budget_tokens == 0) {
    return Status(Code::kInvalidArgument, "fan-out: retry_budget_tokens is 0, expected more than 0");
  }
  if (max_message_bytes == 0 || max_message_bytes > INT32_MAX) {
    return Status(Code::kInvalidArgument,
                  "fan-out: max_message_bytes is " + std::to_string(max_message_bytes) + ", expected 1 to 2147483647");
  }
  if (tls_certificate_file.empty() != tls_private_key_file.empty()) {
    return Status(Code::kInvalidArgument,
                  "fan-out: tls_certificate_file and tls_private_key_file must be given together");
  }
  if (!tls_certificate_file.empty() && tls_root_ca_file.empty()) {
    return Status(Code::kInvalidArgument, "fan-out: tls_certificate_file needs tls_root_ca_file, which is empty");
  }
  return Status();
}

Status Fanout::Create(FanoutParts parts, FanoutOptions options, std::shared_ptr<Fanout>* fanout) {
  if (Status status = options.Check(); !status.ok()) return status;
  fanout->reset(new Fanout(std::move(parts), std::move(options)));
  return Status();
}

Fanout::Fanout(FanoutParts parts, FanoutOptions options)
    : options_(std::move(options)),
      now_ns_(std::move(parts.now_ns)),
      timer_(std::move(parts.timer)),
      budget_(options_.retry_budget_tokens),
      connect_(std::move(parts.connect)),
      threads_(std::move(parts.threads)) {}

Fanout::~Fanout() { Stop(); }

void Fanout::Stop() {
  in_flight_.CloseAndWait();
  std::function<std::shared_ptr<Transport>(const TargetSpec&)> connect;
  std::shared_ptr<void> threads;  // die outside of the lock
  std::lock_guard<std::mutex> lock(mu_);
  std::swap(connect, connect_);
  std::swap(threads, threads_);
}

Status Fanout::MakeRoute(RouteSpec spec, Ref<TesseraRoute>* route) {
  BucketSlots bucket_slots;
  if (Status status = CheckRouteSpec(spec, &bucket_slots); !status.ok()) return status;
  std::vector<std::shared_ptr<Peer>> peers;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (connect_ == nullptr) return Status(Code::kFailedPrecondition, "route: the fan-out is stopped");
    for (const TargetSpec& target : spec.targets) peers.push_back(FindPeer(target));
  }
  *route =
      Ref<TesseraRoute>::Adopt(new TesseraRoute(spec, std::move(bucket_slots), std::move(peers), shared_from_this()));
  return Status();
}

std::shared_ptr<Peer> Fanout::FindPeer(const TargetSpec& target) {
  for (auto peer = peers_.begin(); peer != peers_.end();) {
    peer = peer->second.expired() ? peers_.erase(peer) : std::next(peer);
  }
  const std::string key =
      target.server_id + '\0' + target.address + '\0' + std::to_string(reinterpret_cast<uintptr_t>(target.store.get()));
  std::weak_ptr<Peer>& known = peers_[key];
  if (std::shared_ptr<Peer> peer = known.lock(); peer != nullptr) return peer;
  auto peer = std::make_shared<Peer>();
  peer->server_id = target.server_id;
  peer->address = target.store == nullptr ? target.address : "";
  peer->avoided = avoided_.count(target.server_id) > 0;
  if (target.store != nullptr || !target.address.empty()) peer->transport = connect_(target);
  known = peer;
  return peer;
}

void Fanout::NoteEpoch(const std::string& model, uint64_t epoch, std::string_view placement) {
  std::lock_guard<std::mutex> lock(mu_);
  Newest& newest = newest_[model];
  if (epoch > newest.epoch) newest.epoch = epoch;
  if (epoch > newest.placement_epoch && !placement.empty()) {
    newest.placement_epoch = epoch;
    newest.placement = placement;
    placements_told_.fetch_add(1, std::memory_order_relaxed);
  }
}

std::map<std::string, std::string> Fanout::NewestPlacements() const {
  std::map<std::string, std::string> placements;
  std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [model, newest] : newest_) {
    if (!newest.placement.empty()) placements[model] = newest.placement;
  }
  return placements;
}

uint64_t Fanout::NewerEpoch(const TesseraRoute& route) const {
  std::lock_guard<std::mutex> lock(mu_);
  const auto newest = newest_.find(route.model());
  return newest == newest_.end() || newest->second.epoch <= route.epoch() ? 0 : newest->second.epoch;
}

void Fanout::Avoid(std::set<std::string> server_ids) {
  std::vector<std::shared_ptr<Peer>> peers;  // die outside of the lock
  std::lock_guard<std::mutex> lock(mu_);
  avoided_ = std::move(server_ids);
  for (const auto& [key, known] : peers_) {
    std::shared_ptr<Peer> peer = known.lock();
    if (peer == nullptr) continue;
    peer->avoided = avoided_.count(peer->server_id) > 0;
    peers.push_back(std::move(peer));
  }
}

void Fanout::LookForOutliers(int64_t now_ns) {
  int64_t due_ns = outliers_due_ns_.load(std::memory_order_relaxed);
  if (now_ns < due_ns) return;
  if (!outliers_due_ns_.compare_exchange_strong(due_ns, now_ns + Outlier::kIntervalNs)) return;
  if (due_ns == 0) return;
  std::vector<std::shared_ptr<Peer>> peers;
  {
    // A poller does not wait for who makes a route: then this interval is a longer one.
    std::unique_lock<std::mutex> lock(mu_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    for (const auto& [key, known] : peers_) {
      if (std::shared_ptr<Peer> peer = known.lock(); peer != nullptr) peers.push_back(std::move(peer));
    }
  }
  std::vector<Outlier*> servers;
  for (const std::shared_ptr<Peer>& peer : peers) servers.push_back(&peer->outlier);
  // Who answers well before the retry delay is not worth avoiding: the choice by outstanding work sees it, too.
  const int64_t ejected = EjectOutliers(servers, options_.retry_delay_ns / 2, now_ns);
  ejections_.fetch_add(ejected, std::memory_order_relaxed);
}

void Fanout::RouteBegins(const std::string& model, uint64_t epoch) {
  std::lock_guard<std::mutex> lock(mu_);
  ++route_counts_[model][epoch];
}

void Fanout::RouteEnds(const std::string& model, uint64_t epoch) {
  std::lock_guard<std::mutex> lock(mu_);
  auto counts = route_counts_.find(model);
  if (--counts->second[epoch] > 0) return;
  counts->second.erase(epoch);
  if (counts->second.empty()) route_counts_.erase(counts);
}

FanoutStats Fanout::Stats() const {
  FanoutStats stats;
  stats.lookups = lookups_.load(std::memory_order_relaxed);
  stats.subrequests = subrequests_.load(std::memory_order_relaxed);
  stats.rpcs = rpcs_.load(std::memory_order_relaxed);
  stats.merged = merged_.load(std::memory_order_relaxed);
  stats.retries = retries_.load(std::memory_order_relaxed);
  stats.hedges = hedges_.load(std::memory_order_relaxed);
  stats.failures = failures_.load(std::memory_order_relaxed);
  stats.ejections = ejections_.load(std::memory_order_relaxed);
  const int64_t now_ns = now_ns_();
  std::vector<std::shared_ptr<Peer>> peers;  // die outside of the lock
  std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [key, known] : peers_) {
    std::shared_ptr<Peer> peer = known.lock();
    if (peer == nullptr) continue;
    // A server that came back at another address may be known twice.
    FanoutServerStats& server = stats.servers[peer->server_id];
    server.subrequests += peer->subrequests.load(std::memory_order_relaxed);
    server.rpcs += peer->rpcs.load(std::memory_order_relaxed);
    server.failures += peer->failures.load(std::memory_order_relaxed);
    server.in_flight += peer->in_flight.load(std::memory_order_relaxed);
    server.suspect = server.suspect || peer->suspect.suspected();
    server.ejected = server.ejected || peer->outlier.ejected(now_ns);
    server.avoided = server.avoided || peer->avoided.load(std::memory_order_relaxed);
    server.ejections += peer->outlier.ejections();
    peers.push_back(std::move(peer));
  }
  for (const auto& [model, newest] : newest_) stats.newest_epochs[model] = newest.epoch;
  for (const auto& [model, counts] : route_counts_) stats.oldest_epochs[model] = counts.begin()->first;
  return stats;
}

const TesseraFanoutApi* FanoutApi() {
  static const TesseraFanoutApi api = {
      TESSERA_ABI_VERSION,
      [](TesseraRoute* route) { route->AddRef(); },
      [](TesseraRoute* route) { route->Release(); },
      [](const TesseraRoute* route) { return static_cast<uint32_t>(route->table_count()); },
      [](const TesseraRoute* route, uint32_t table, int64_t* rows, int64_t* row_bytes) {
        *rows = route->table(table).rows;
        *row_bytes = route->table(table).row_bytes;
      },
      &TesseraLookup::Start,
      [](TesseraLookup* lookup) { lookup->Cancel(); },
      [](TesseraLookup* lookup) { lookup->Release(); },
      [](const TesseraRoute* route) { return route->fanout().NewerEpoch(*route); },
  };
  return &api;
}

}  // namespace tessera
