#include "cpp_ext/rpc/in_flight.h"

#include <atomic>
#include <vector>

#include "cpp_ext/rpc/lookup.h"
#include "cpp_ext/rpc/ref.h"

namespace tessera {
namespace {

size_t ThisThreadsNumber() {
  static std::atomic<size_t> next{0};
  thread_local const size_t number = next.fetch_add(1, std::memory_order_relaxed);
  return number;
}

}  // namespace

bool InFlight::Add(TesseraLookup* lookup) {
  InFlightLink& link = lookup->in_flight_link();
  link.shard = ThisThreadsNumber() % kShards;
  Shard& shard = shards_[link.shard];
  std::lock_guard<std::mutex> lock(shard.mu);
  if (shard.closed) return false;
  link.previous = nullptr;
  link.next = shard.head;
  if (shard.head != nullptr) shard.head->in_flight_link().previous = lookup;
  shard.head = lookup;
  return true;
}

void InFlight::Remove(TesseraLookup* lookup) {
  InFlightLink& link = lookup->in_flight_link();
  Shard& shard = shards_[link.shard];
  std::lock_guard<std::mutex> lock(shard.mu);
  (link.previous == nullptr ? shard.head : link.previous->in_flight_link().next) = link.next;
  if (link.next != nullptr) link.next->in_flight_link().previous = link.previous;
  if (shard.closed && shard.head == nullptr) shard.emptied.notify_all();
}

void InFlight::CloseAndWait() {
  std::vector<Ref<TesseraLookup>> lookups;
  for (Shard& shard : shards_) {
    std::lock_guard<std::mutex> lock(shard.mu);
    shard.closed = true;
    for (TesseraLookup* lookup = shard.head; lookup != nullptr; lookup = lookup->in_flight_link().next) {
      lookups.push_back(Ref<TesseraLookup>::Share(lookup));
    }
  }
  for (const Ref<TesseraLookup>& lookup : lookups) lookup->Cancel();
  lookups.clear();
  for (Shard& shard : shards_) {
    std::unique_lock<std::mutex> lock(shard.mu);
    shard.emptied.wait(lock, [&shard] { return shard.head == nullptr; });
  }
}

}  // namespace tessera
