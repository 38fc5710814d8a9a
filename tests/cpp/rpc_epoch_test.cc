// Routes of several epochs beside each other: what a lookup pins, and what is told of newer placements.
#include <gtest/gtest.h>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

RouteSpec SpecOf(uint64_t epoch, char digest = 'd') {
  RouteSpec spec = FakeServers::Spec(2, 2);
  spec.epoch = epoch;
  spec.package_digest = std::string(32, digest);
  return spec;
}

// What a server would be asked for.
LookupHeader HeaderOf(const FakeCall& call) {
  LookupHeader header;
  std::vector<LookupBlock> blocks;
  const Status status =
      ParseLookupRequest(reinterpret_cast<const uint8_t*>(call.request.data()), call.request.size(), &header, &blocks);
  EXPECT_TRUE(status.ok()) << status.message();
  return header;
}

void RefuseWith(FakeCall* call, uint64_t epoch, const std::string& placement) {
  Refusal refusal;
  refusal.kind = RefusalKind::kNotOwner;
  refusal.message = "moved";
  refusal.epoch = epoch;
  refusal.placement = placement;
  const std::string response = BuildRefusal(refusal);
  call->ended = true;
  std::move(call->done)(Status(), reinterpret_cast<const uint8_t*>(response.data()), response.size());
}

TEST(Epochs, ALookupKeepsToItsRouteInRetriesAndHedges) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3, 'a'));
  TestLookup lookup(&servers, {{0, {1}}});
  const auto first = servers.Open().at(0);
  servers.MakeRoute(SpecOf(4, 'b'));  // the route of 3 is now the lookup's alone
  servers.Advance(kRetryDelayNs);
  const auto hedge = servers.Open().at(1);
  hedge->Fail(Code::kUnavailable);
  for (const auto& call : servers.calls) {
    EXPECT_EQ(HeaderOf(*call).epoch, 3u);
    EXPECT_EQ(HeaderOf(*call).package_digest, std::string(32, 'a'));
  }
  TestLookup next(&servers, {{0, {1}}});
  EXPECT_EQ(HeaderOf(*servers.calls.back()).epoch, 4u);
  EXPECT_EQ(HeaderOf(*servers.calls.back()).package_digest, std::string(32, 'b'));
  servers.AnswerAll();
  lookup.ExpectRows();
  next.ExpectRows();
}

TEST(Epochs, LookupsOfDifferentEpochsNeverShareARequest) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_in_flight_lookups_per_server = 1;
  FakeServers servers(options);
  servers.MakeRoute(SpecOf(3));
  const Ref<TesseraRoute> old = servers.route;
  servers.MakeRoute(SpecOf(4));
  const Ref<TesseraRoute> current = servers.route;
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int64_t id = 0; id < 20; ++id) {
    servers.route = id % 2 == 0 ? old : current;
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {id}}}));
  }
  while (!servers.Open().empty()) servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
  for (const auto& call : servers.calls) {
    for (const auto& [table, ids] : call->Asked()) {
      for (const uint64_t id : ids) EXPECT_EQ(HeaderOf(*call).epoch, id % 2 == 0 ? 3u : 4u);
    }
  }
}

TEST(Epochs, TheOldestIsThatOfTheOldestRouteThatALookupStillUses) {
  FakeServers servers;
  EXPECT_TRUE(servers.fanout->Stats().oldest_epochs.empty());
  servers.MakeRoute(SpecOf(3));
  auto lookup = std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {1}}});
  servers.MakeRoute(SpecOf(4));
  servers.MakeRoute(SpecOf(5));
  const auto oldest = [&] { return servers.fanout->Stats().oldest_epochs.at("ranker"); };
  EXPECT_EQ(oldest(), 3u);
  servers.AnswerAll();
  lookup->ExpectRows();
  lookup.reset();
  EXPECT_EQ(oldest(), 5u) << "4 was used by nobody";
  servers.route = Ref<TesseraRoute>();
  EXPECT_TRUE(servers.fanout->Stats().oldest_epochs.empty());
}

TEST(Epochs, TwoRoutesOfOneEpochCountBoth) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3));
  const Ref<TesseraRoute> first = servers.route;
  servers.MakeRoute(SpecOf(3));  // a server has another address, say
  servers.route = Ref<TesseraRoute>();
  EXPECT_EQ(servers.fanout->Stats().oldest_epochs.at("ranker"), 3u);
}

TEST(Epochs, ACancelledLookupHoldsItsRouteUntilItsCallsHaveEnded) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3));
  {
    TestLookup lookup(&servers, {{0, {1}}});
    servers.route = Ref<TesseraRoute>();
    lookup.Cancel();
  }
  EXPECT_EQ(servers.fanout->Stats().oldest_epochs.at("ranker"), 3u);
  servers.Open().at(0)->Fail(Code::kCancelled);
  EXPECT_TRUE(servers.fanout->Stats().oldest_epochs.empty());
}

TEST(Epochs, RefusalsTellOfTheNewestPlacementOnly) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3));
  const auto refuse_both = [&](uint64_t epoch, const std::string& placement) {
    TestLookup lookup(&servers, {{0, {1}}});
    while (!servers.Open().empty()) RefuseWith(servers.Open()[0].get(), epoch, placement);
    lookup.ExpectFailure(Code::kUnavailable, {"NOT_OWNER", "moved"});
  };
  const TesseraFanoutApi* api = FanoutApi();
  refuse_both(3, "of 3");
  refuse_both(2, "of 2");
  EXPECT_TRUE(servers.fanout->NewestPlacements().empty()) << "no newer than what the lookup asked for";
  EXPECT_EQ(api->newer_epoch(servers.route.get()), 0u);
  EXPECT_EQ(servers.fanout->placements_told(), 0);
  refuse_both(7, "of 7");
  refuse_both(6, "of 6");
  refuse_both(8, "");
  EXPECT_EQ(servers.fanout->NewestPlacements().at("ranker"), "of 7");
  EXPECT_EQ(servers.fanout->placements_told(), 1);
  EXPECT_EQ(api->newer_epoch(servers.route.get()), 8u) << "known, though nobody has said what is in it";
  servers.MakeRoute(SpecOf(7));
  EXPECT_EQ(api->newer_epoch(servers.route.get()), 8u);
  servers.MakeRoute(SpecOf(8));
  EXPECT_EQ(api->newer_epoch(servers.route.get()), 0u);
}

TEST(Epochs, WhatIsToldOfOneModelSaysNothingOfAnother) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3));
  {
    TestLookup lookup(&servers, {{0, {1}}});
    RefuseWith(servers.Open()[0].get(), 9, "of 9");
    servers.AnswerAll();
    lookup.ExpectRows();
  }
  RouteSpec other = SpecOf(3);
  other.model = "other";
  servers.MakeRoute(other);
  EXPECT_EQ(FanoutApi()->newer_epoch(servers.route.get()), 0u);
}

TEST(Epochs, ANewRouteSharesConnectionsAndWhatIsThoughtOfServers) {
  FakeServers servers;
  servers.MakeRoute(SpecOf(3));
  const Ref<TesseraRoute> old = servers.route;
  {
    TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
    servers.OpenTo("s0")->Fail(Code::kUnavailable);
    servers.AnswerAll();
  }
  servers.MakeRoute(SpecOf(4));
  EXPECT_EQ(old->target(0).peer, servers.route->target(0).peer);
  EXPECT_NE(old->target(0).queue, servers.route->target(0).queue);
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
  EXPECT_EQ(servers.Open().at(0)->server_id, "s1") << "s0 has just failed";
  servers.AnswerAll();
}

TEST(RetryBudget, OfTheFanoutBoundsRetriesAndHedgesTogetherToATenthOfWhatSucceeds) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.retry_budget_tokens = 10;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(2, 2));
  int64_t answered = 0;
  for (int i = 0; i < 2000; ++i) {
    TestLookup lookup(&servers, {{0, {i % 1000}}});
    if (i % 2 == 0) {
      servers.Advance(kRetryDelayNs);
    } else {
      servers.Open()[0]->Fail(Code::kInternal);
    }
    for (const auto& call : servers.Open()) {
      call->AnswerRows();
      ++answered;
    }
  }
  const FanoutStats stats = servers.fanout->Stats();
  EXPECT_GT(stats.retries, 0);
  EXPECT_GT(stats.hedges, 0);
  EXPECT_LE(stats.retries + stats.hedges, 10 + answered / 10);
}

}  // namespace
}  // namespace tessera
