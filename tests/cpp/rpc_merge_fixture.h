// What tests of merged lookups share.
#ifndef TESSERA_TESTS_CPP_RPC_MERGE_FIXTURE_H_
#define TESSERA_TESTS_CPP_RPC_MERGE_FIXTURE_H_

#include <memory>
#include <vector>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {

inline FanoutOptions Merging(uint32_t max_in_flight) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_in_flight_lookups_per_server = max_in_flight;
  return options;
}

using Lookups = std::vector<std::unique_ptr<TestLookup>>;

// Starts a lookup of one row of table 0 for each id.
inline Lookups Start(FakeServers* servers, const std::vector<int64_t>& ids, int64_t deadline_ns = TESSERA_NO_DEADLINE) {
  Lookups lookups;
  for (const int64_t id : ids) {
    lookups.push_back(std::make_unique<TestLookup>(servers, std::vector<TestLookup::Ids>{{0, {id}}}, deadline_ns));
  }
  return lookups;
}

// The rows of table 0 that a call asks for, whatever its blocks.
inline std::vector<uint64_t> Ids(const FakeCall& call) {
  std::vector<uint64_t> all;
  for (const auto& [table, ids] : call.Asked()) all.insert(all.end(), ids.begin(), ids.end());
  return all;
}

using U64s = std::vector<uint64_t>;

}  // namespace tessera

#endif  // TESSERA_TESTS_CPP_RPC_MERGE_FIXTURE_H_
