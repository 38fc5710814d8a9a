// What a route may look like.
#include <gtest/gtest.h>

#include <functional>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

std::string Refused(const std::function<void(RouteSpec*)>& change) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(3, 2);
  change(&spec);
  Ref<TesseraRoute> route;
  const Status status = servers.fanout->MakeRoute(spec, &route);
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.message();
  EXPECT_FALSE(route);
  return status.message();
}

#define EXPECT_REFUSED(text, change)                                                \
  do {                                                                              \
    const std::string message = Refused([](RouteSpec* spec) { change; });           \
    EXPECT_NE(message.find(text), std::string::npos) << text << " in: " << message; \
  } while (0)

TEST(Route, NamesWhatIsWrong) {
  EXPECT_REFUSED("model is empty", spec->model = "");
  EXPECT_REFUSED("package_digest has 31 bytes", spec->package_digest.pop_back());
  EXPECT_REFUSED("targets[1].server_id", spec->targets[1].server_id = "");
  EXPECT_REFUSED("slots has 0 entries", spec->slots.clear());
  EXPECT_REFUSED("slots has 65537 entries", spec->slots.resize(65537));
  EXPECT_REFUSED("slots[2] names target 3", spec->slots[2][0] = 3);
  EXPECT_REFUSED("slots[2] names target 1 twice", (spec->slots[2] = {1, 1}));
  EXPECT_REFUSED("slots[2] has 17 replicas", spec->slots[2].resize(17));
  EXPECT_REFUSED("tables[1].name", spec->tables[1].name = "");
  EXPECT_REFUSED("tables[1].rows is -1", spec->tables[1].rows = -1);
  EXPECT_REFUSED("tables[1].row_bytes is 0", spec->tables[1].row_bytes = 0);
  EXPECT_REFUSED("tables[1].buckets is 0", spec->tables[1].buckets = 0);
  EXPECT_REFUSED("tables[1].buckets is 18446744073709551615", spec->tables[1].buckets = UINT64_MAX);
  EXPECT_REFUSED("is empty, expected a target that holds bucket", for (auto& slot : spec->slots) slot.clear());
}

TEST(Route, AllowsEmptySlotsWithoutBuckets) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(3, 2, 4096);
  spec.tables = {{"one", 10, 4, 1}};
  const uint32_t used = SlotOf("one", 0, 4096);
  for (uint32_t slot = 0; slot < 4096; ++slot) {
    if (slot != used) spec.slots[slot].clear();
  }
  servers.MakeRoute(spec);
}

TEST(Route, PutsBucketsWhereThePlacementHashPutsThem) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 2, 64));
  for (size_t i = 0; i < servers.tables.size(); ++i) {
    const TesseraRoute::Table& table = servers.route->table(i);
    for (uint64_t id = 0; id < 500; ++id) {
      const uint64_t bucket = id % servers.tables[i].buckets;
      ASSERT_EQ(table.Bucket(id), bucket);
      ASSERT_EQ(table.bucket_slots[bucket], SlotOf(servers.tables[i].name, bucket, 64));
    }
  }
}

TEST(Route, TellsTablesThroughTheCInterface) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 2));
  const TesseraFanoutApi* api = FanoutApi();
  EXPECT_EQ(api->abi_version, static_cast<uint32_t>(TESSERA_ABI_VERSION));
  EXPECT_EQ(api->table_count(servers.route.get()), 3u);
  int64_t rows = 0, row_bytes = 0;
  api->table_shape(servers.route.get(), 1, &rows, &row_bytes);
  EXPECT_EQ(rows, 5000);
  EXPECT_EQ(row_bytes, 20);
  api->retain_route(servers.route.get());
  api->release_route(servers.route.get());
}

}  // namespace
}  // namespace tessera
