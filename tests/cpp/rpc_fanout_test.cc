// Lookups that go well: what is sent to whom, and where the rows land.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

TEST(Fanout, SendsOneRequestPerServerForAllTables) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(4, 1));
  std::vector<TestLookup::Ids> wanted(2);
  wanted[0].table = 0;
  wanted[1].table = 1;
  for (int64_t id = 0; id < 500; ++id) {
    wanted[0].ids.push_back(id);
    wanted[1].ids.push_back(id * 7);
  }
  TestLookup lookup(&servers, wanted);
  std::set<std::string> asked;
  for (const auto& call : servers.calls) EXPECT_TRUE(asked.insert(call->server_id).second);
  EXPECT_EQ(asked.size(), 4u);
  EXPECT_EQ(lookup.done_count, 0);
  servers.AnswerAll();
  lookup.ExpectRows();
  EXPECT_EQ(servers.fanout->Stats().subrequests, 4);
}

TEST(Fanout, NamesThePackageAndTheEpoch) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(1, 1));
  TestLookup lookup(&servers, {{0, {5}}}, servers.now_ns + 77);
  LookupHeader header;
  std::vector<LookupBlock> blocks;
  const std::string& request = servers.calls.at(0)->request;
  ASSERT_TRUE(
      ParseLookupRequest(reinterpret_cast<const uint8_t*>(request.data()), request.size(), &header, &blocks).ok());
  EXPECT_EQ(header.package_digest, std::string(32, 'd'));
  EXPECT_EQ(header.model, "ranker");
  EXPECT_EQ(header.version, 7);
  EXPECT_EQ(header.epoch, 3u);
  EXPECT_EQ(servers.calls[0]->deadline_ns, servers.now_ns + 77);
  servers.AnswerAll();
}

TEST(Fanout, AsksForEachRowOnceAcrossGathers) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(1, 1));
  TestLookup lookup(&servers, {{0, {5, 6, 5, 5}}, {1, {5}}, {0, {6, 9}, 4}});
  ASSERT_EQ(servers.calls.size(), 1u);
  const auto asked = servers.calls[0]->Asked();
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_EQ(asked[0].second, (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(asked[1].second, (std::vector<uint64_t>{5}));
  EXPECT_EQ(asked[2].second, (std::vector<uint64_t>{9}));
  servers.AnswerAll();
  lookup.ExpectRows();
}

TEST(Fanout, UsesWideIdsOnlyForTablesThatNeedThem) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  TestLookup lookup(&servers, {{2, {(int64_t{1} << 40) - 1, int64_t{1} << 33, 3}}, {0, {3}}});
  servers.AnswerAll();
  lookup.ExpectRows();
}

TEST(Fanout, AnswersALookupOfNothingWithoutAnyone) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  TestLookup none(&servers, {});
  TestLookup empty(&servers, {{0, {}}});
  EXPECT_EQ(none.code, 0);
  EXPECT_EQ(empty.code, 0);
  EXPECT_TRUE(servers.calls.empty());
}

TEST(Fanout, WorksWithServersThatAnswerBeforeStartReturns) {
  FakeServers servers;
  servers.on_start = [](FakeCall* call) { call->AnswerRows(); };
  servers.MakeRoute(FakeServers::Spec(4, 2));
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < 300; ++id) ids.push_back(id);
  TestLookup lookup(&servers, {{0, ids}});
  lookup.ExpectRows();
  EXPECT_TRUE(servers.timer->empty()) << "nothing waits when all is answered";
}

TEST(Fanout, GivesEveryRowToItsPlaceForRandomLookups) {
  std::mt19937 random(42);
  for (int round = 0; round < 300; ++round) {
    FakeServers servers;
    const size_t count = 1 + random() % 6;
    const size_t replicas = 1 + random() % std::min<size_t>(count, 3);
    RouteSpec spec = FakeServers::Spec(count, replicas, 1 + random() % 100);
    for (TableSpec& table : spec.tables) {
      const int64_t sizes[] = {1, 4, 16, 32, 64, 128, 256, 12, 100};
      table.row_bytes = sizes[random() % 9];
      table.buckets = 1 + 2 * (random() % 50);
    }
    servers.MakeRoute(spec);
    std::vector<TestLookup::Ids> wanted(random() % 8);
    for (TestLookup::Ids& ids : wanted) {
      ids.table = random() % 3;
      ids.width_bytes = random() % 2 ? 4 : 8;
      ids.ids.resize(random() % 60);
      for (int64_t& id : ids.ids) id = random() % (random() % 2 ? 1000 : 20);
    }
    TestLookup lookup(&servers, wanted);
    // In any order, with failures while there is a replica.
    for (size_t left = replicas > 1 ? 2 : 0; !servers.Open().empty();) {
      const auto open = servers.Open();
      const auto& call = open[random() % open.size()];
      if (left > 0 && replicas > 1 && random() % 3 == 0 && call->server_id == "s0") {
        --left;
        call->Fail(Code::kUnavailable);
      } else {
        call->AnswerRows();
      }
    }
    lookup.ExpectRows();
  }
}

TEST(Fanout, NamesABadId) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  TestLookup high(&servers, {{0, {5, 1000}}});
  high.ExpectFailure(Code::kInvalidArgument, {"\"words\"", "id 1000", "position 1", "[0, 1000)"});
  TestLookup negative(&servers, {{0, {-1}, 4}});
  negative.ExpectFailure(Code::kInvalidArgument, {"\"words\"", "id -1", "position 0"});
  TestLookup table(&servers, {{9, {1}}});
  table.ExpectFailure(Code::kInvalidArgument, {"table 9"});
  EXPECT_TRUE(servers.calls.empty());
  EXPECT_EQ(servers.fanout->Stats().failures, 3);
}

TEST(Fanout, SplitsWhatIsLargerThanAMessageMayBe) {
  for (const size_t max_message_bytes : {200, 500, 810}) {
    FanoutOptions options = FakeServers::DefaultOptions();
    options.max_message_bytes = max_message_bytes;
    FakeServers servers(options);
    servers.MakeRoute(FakeServers::Spec(1, 1));
    std::vector<int64_t> ids;
    for (int64_t id = 0; id < 100; ++id) ids.push_back(id);
    TestLookup lookup(&servers, {{0, ids}, {1, ids, 4}});
    EXPECT_GT(servers.calls.size(), 2800 / max_message_bytes);
    for (const auto& call : servers.calls) {
      EXPECT_LE(call->request.size(), max_message_bytes);
      size_t rows_bytes = 0;
      for (const auto& [table, rows] : call->Asked()) rows_bytes += rows.size() * (table == 0 ? 8 : 20);
      EXPECT_LE(RowsHeaderBytes(rows_bytes) + rows_bytes, max_message_bytes);
    }
    servers.AnswerAll();
    lookup.ExpectRows();
  }
}

TEST(Fanout, SplitsWhatHasMoreBlocksThanARequestMayHave) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_message_bytes = 64 << 20;
  FakeServers servers(options);
  RouteSpec spec = FakeServers::Spec(1, 1);
  spec.tables[0].rows = 100'000;
  spec.tables[1].rows = 100'000;
  servers.MakeRoute(std::move(spec));
  std::vector<TestLookup::Ids> wanted;
  for (int64_t id = 0; id <= int64_t{kMaxLookupBlocks}; ++id) wanted.push_back({static_cast<uint32_t>(id % 2), {id}});
  TestLookup lookup(&servers, wanted);
  ASSERT_EQ(servers.calls.size(), 2u);
  EXPECT_EQ(servers.calls[0]->Asked().size(), kMaxLookupBlocks);
  EXPECT_EQ(servers.calls[1]->Asked().size(), 1u);
  servers.AnswerAll();
  lookup.ExpectRows();
}

TEST(Fanout, NamesARowThatNoMessageCanHold) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_message_bytes = 150;
  FakeServers servers(options);
  RouteSpec spec = FakeServers::Spec(1, 1);
  spec.tables[1].row_bytes = 160;
  servers.MakeRoute(std::move(spec));
  TestLookup lookup(&servers, {{0, {1}}, {1, {1}}});
  lookup.ExpectFailure(Code::kResourceExhausted, {"\"users\"", "160 bytes", "max_message_bytes, 150"});
  EXPECT_TRUE(servers.Open().empty());
}

TEST(Fanout, SharesConnectionsBetweenRoutes) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  const Ref<TesseraRoute> first = servers.route;
  servers.MakeRoute(FakeServers::Spec(3, 1));
  EXPECT_EQ(first->target(0).peer, servers.route->target(0).peer);
  EXPECT_NE(servers.route->target(1).peer, servers.route->target(2).peer);
  RouteSpec moved = FakeServers::Spec(2, 1);
  moved.targets[0].address = "elsewhere:1";
  servers.MakeRoute(moved);
  EXPECT_NE(first->target(0).peer, servers.route->target(0).peer);
}

TEST(Fanout, RefusesLookupsAndRoutesAfterStop) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  servers.fanout->Stop();
  servers.fanout->Stop();
  TestLookup lookup(&servers, {{0, {1}}});
  lookup.ExpectFailure(Code::kUnavailable, {"stopped"});
  Ref<TesseraRoute> route;
  EXPECT_EQ(servers.fanout->MakeRoute(FakeServers::Spec(2, 1), &route).code(), Code::kFailedPrecondition);
}

TEST(Fanout, NamesABadOption) {
  const auto create = [](void (*change)(FanoutOptions*)) {
    FanoutOptions options = FakeServers::DefaultOptions();
    change(&options);
    std::shared_ptr<Fanout> fanout;
    const Status status = Fanout::Create(FanoutParts(), options, &fanout);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_NE(create([](FanoutOptions* o) { o->retry_delay_ns = 0; }).find("retry_delay"), std::string::npos);
  EXPECT_NE(create([](FanoutOptions* o) { o->retry_budget_tokens = 0; }).find("retry_budget_tokens"),
            std::string::npos);
  EXPECT_NE(create([](FanoutOptions* o) { o->max_message_bytes = 0; }).find("max_message_bytes"), std::string::npos);
  EXPECT_NE(create([](FanoutOptions* o) { o->tls_certificate_file = "x"; }).find("tls_private_key"), std::string::npos);
}

}  // namespace
}  // namespace tessera
