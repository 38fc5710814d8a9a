// Lookups that meet at a server: what waits, what is merged, and how much.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "tests/cpp/rpc_merge_fixture.h"

namespace tessera {
namespace {

TEST(FanoutMerge, SendsAtOnceWhileFewAreInFlight) {
  FakeServers servers(Merging(2));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2});
  EXPECT_EQ(servers.Open().size(), 2u);
  EXPECT_TRUE(servers.timer->empty()) << "an RPC of one has its own deadline";
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
  EXPECT_EQ(servers.fanout->Stats().merged, 0);
}

TEST(FanoutMerge, MergesWhatWaitsWhenAnRpcEnds) {
  FakeServers servers(Merging(2));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3, 4, 5});
  ASSERT_EQ(servers.calls.size(), 2u);
  servers.calls[1]->AnswerRows();
  lookups[1]->ExpectRows();
  ASSERT_EQ(servers.calls.size(), 3u);
  EXPECT_EQ(Ids(*servers.calls[2]), (U64s{3, 4, 5}));
  EXPECT_EQ(lookups[2]->done_count, 0);
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
  const FanoutStats stats = servers.fanout->Stats();
  EXPECT_EQ(stats.subrequests, 5);
  EXPECT_EQ(stats.rpcs, 3);
  EXPECT_EQ(stats.merged, 3);
  EXPECT_EQ(stats.servers.at("s0").subrequests, 5);
  EXPECT_EQ(stats.servers.at("s0").rpcs, 3);
  EXPECT_EQ(stats.servers.at("s0").in_flight, 0);
}

TEST(FanoutMerge, GivesTheServerItsNextWorkBeforeItTellsTheMembers) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2});
  size_t told_before = 99;
  servers.on_start = [&](FakeCall*) { told_before = static_cast<size_t>(lookups[0]->done_count); };
  servers.calls[0]->AnswerRows();
  EXPECT_EQ(told_before, 0u);
  servers.AnswerAll();
}

TEST(FanoutMerge, ZeroInFlightMeansNeverToMerge) {
  FakeServers servers(Merging(0));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, std::vector<int64_t>(50, 7));
  EXPECT_EQ(servers.Open().size(), 50u);
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, MergesOnlyTheSameRouteAndServer) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(2, 1));
  const Ref<TesseraRoute> old_route = servers.route;
  const int64_t on0 = IdOn(servers, 0, 0), on1 = IdOn(servers, 0, 1);
  Lookups lookups = Start(&servers, {on0, on0, on1, on1});
  RouteSpec newer = FakeServers::Spec(2, 1);
  newer.epoch = 4;
  servers.MakeRoute(std::move(newer));
  for (auto& lookup : Start(&servers, {on0, on0})) lookups.push_back(std::move(lookup));
  // Of each route and server one is in flight.
  ASSERT_EQ(servers.calls.size(), 3u);
  for (size_t i = 0; i < 3; ++i) servers.calls[i]->AnswerRows();
  ASSERT_EQ(servers.calls.size(), 6u);
  for (const auto& call : servers.calls) EXPECT_EQ(Ids(*call).size(), 1u);
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, ASlowServersQueueDelaysNoOther) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(2, 1));
  const int64_t on0 = IdOn(servers, 0, 0), on1 = IdOn(servers, 0, 1);
  const Lookups stuck = Start(&servers, {on0, on0, on0});
  for (int i = 0; i < 5; ++i) {
    TestLookup lookup(&servers, {{0, {on1}}});
    servers.OpenTo("s1")->AnswerRows();
    lookup.ExpectRows();
  }
  servers.AnswerAll();
  servers.AnswerAll();
}

TEST(FanoutMerge, AnsweredAtOnceItSendsInALoopNotInARecursion) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  Lookups lookups = Start(&servers, {0});
  // Too large together: each is an RPC of its own, answered before Start returns.
  servers.on_start = [](FakeCall* call) { call->AnswerRows(); };
  std::vector<int64_t> ids(1000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  for (int i = 0; i < 400; ++i) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, ids}, {1, ids}}));
  }
  EXPECT_EQ(servers.calls.size(), 1u);
  servers.calls[0]->AnswerRows();
  EXPECT_GT(servers.calls.size(), 5u);
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

// --- Limits --------------------------------------------------------------------------------------------------------

TEST(FanoutMerge, KeepsAMergedRpcWithinTheMessageLimitAndTheOrder) {
  FanoutOptions options = Merging(1);
  options.max_message_bytes = 400;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(1, 1));
  Lookups lookups = Start(&servers, {0});
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    std::vector<int64_t> ids(1 + random() % 30);
    for (int64_t& id : ids) id = random() % 1000;
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{i % 2u, ids}}));
  }
  std::vector<int> order;
  while (!servers.Open().empty()) {
    const auto call = servers.Open().at(0);
    EXPECT_LE(call->request.size(), 400u);
    size_t rows_bytes = 0;
    for (const auto& [table, rows] : call->Asked()) rows_bytes += rows.size() * (table == 0 ? 8 : 20);
    EXPECT_LE(RowsHeaderBytes(rows_bytes) + rows_bytes, 400u);
    call->AnswerRows();
    // First come, first served: all before a lookup that is done are done.
    bool open_before = false;
    for (const auto& lookup : lookups) {
      EXPECT_FALSE(open_before && lookup->done_count > 0);
      open_before = open_before || lookup->done_count == 0;
    }
  }
  for (const auto& lookup : lookups) lookup->ExpectRows();
  EXPECT_LT(servers.fanout->Stats().rpcs, servers.fanout->Stats().subrequests);
}

TEST(FanoutMerge, KeepsAMergedRpcWithinTheNumberOfBlocks) {
  FanoutOptions options = Merging(1);
  options.max_message_bytes = 64 << 20;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(1, 1));
  Lookups lookups = Start(&servers, {0});
  for (int i = 0; i < 70; ++i) {
    std::vector<TestLookup::Ids> wanted;
    for (int64_t id = 0; id < 1000; ++id) wanted.push_back({static_cast<uint32_t>(id % 2), {id}});
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::move(wanted)));
  }
  while (!servers.Open().empty()) {
    EXPECT_LE(servers.Open().at(0)->Asked().size(), kMaxLookupBlocks);
    servers.AnswerAll();
  }
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, GivesEveryMemberItsRowsForRandomLookups) {
  std::mt19937 random(17);
  for (int round = 0; round < 100; ++round) {
    FakeServers servers(Merging(1 + random() % 3));
    const size_t count = 1 + random() % 4;
    servers.MakeRoute(FakeServers::Spec(count, 1 + random() % count, 1 + random() % 50));
    Lookups lookups;
    std::vector<bool> cancelled;
    for (int step = 0; step < 120 || !servers.Open().empty(); ++step) {
      const uint32_t what = random() % 8;
      if (step < 100 && what < 5) {
        std::vector<TestLookup::Ids> wanted(random() % 4);
        for (TestLookup::Ids& ids : wanted) {
          ids.table = random() % 3;
          ids.width_bytes = random() % 2 ? 4 : 8;
          ids.ids.resize(random() % 20);
          for (int64_t& id : ids.ids) id = random() % 500;
        }
        lookups.push_back(std::make_unique<TestLookup>(&servers, std::move(wanted)));
        cancelled.push_back(false);
      } else if (step < 100 && what == 5 && !lookups.empty()) {
        const size_t chosen = random() % lookups.size();
        cancelled[chosen] = lookups[chosen]->done_count == 0 || cancelled[chosen];
        lookups[chosen]->Cancel();
      } else if (const auto open = servers.Open(); !open.empty()) {
        const auto& call = open[random() % open.size()];
        if (call->cancelled) {
          call->Fail(Code::kCancelled);
        } else {
          call->AnswerRows();
        }
      }
    }
    for (size_t i = 0; i < lookups.size(); ++i) {
      if (cancelled[i]) {
        lookups[i]->ExpectFailure(Code::kCancelled, {});
      } else {
        lookups[i]->ExpectRows();
      }
    }
    for (const auto& [id, server] : servers.fanout->Stats().servers) EXPECT_EQ(server.in_flight, 0) << id;
  }
}

}  // namespace
}  // namespace tessera
