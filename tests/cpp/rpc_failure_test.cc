// Lookups over servers that fail, refuse, are late or are gone.
#include <gtest/gtest.h>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

TEST(FanoutFailure, SendsTheRowsOfAFailedServerToTheirReplicas) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(4, 2));
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < 200; ++id) ids.push_back(id);
  TestLookup lookup(&servers, {{0, ids}});
  const auto failed = servers.OpenTo("s1");
  failed->Fail(Code::kUnavailable);
  const auto retry = servers.calls.back();
  EXPECT_EQ(retry->server_id, "s2");
  EXPECT_EQ(retry->Asked(), failed->Asked());
  servers.AnswerAll();
  lookup.ExpectRows();
  EXPECT_EQ(servers.fanout->Stats().retries, 1);
  EXPECT_EQ(servers.fanout->Stats().failures, 0);
}

TEST(FanoutFailure, RegroupsTheRowsWhenTheirReplicasDiffer) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(4, 1, 4);
  spec.slots = {{0, 1}, {0, 2}, {0, 3}, {0, 1}};
  servers.MakeRoute(spec);
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < 200; ++id) ids.push_back(id);
  TestLookup lookup(&servers, {{0, ids}});
  ASSERT_EQ(servers.calls.size(), 1u);
  servers.calls[0]->Fail(Code::kInternal);
  EXPECT_EQ(servers.Open().size(), 3u);
  servers.AnswerAll();
  lookup.ExpectRows();
}

TEST(FanoutFailure, MovesOnAfterEveryRefusalThatAnotherServerMayNotShare) {
  for (const RefusalKind kind :
       {RefusalKind::kNotOwner, RefusalKind::kDraining, RefusalKind::kOverloaded, RefusalKind::kUnspecified}) {
    FakeServers servers;
    servers.MakeRoute(FakeServers::Spec(2, 2));
    TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
    servers.OpenTo("s0")->Refuse(kind);
    servers.OpenTo("s1")->AnswerRows();
    lookup.ExpectRows();
  }
}

TEST(FanoutFailure, EndsAtOnceWhenTheRequestItselfIsBad) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
  servers.OpenTo("s0")->Refuse(RefusalKind::kBadRequest);
  lookup.ExpectFailure(Code::kInternal, {"BAD_REQUEST", "the reason"});
}

TEST(FanoutFailure, NamesTableBucketAndServersWhenNoneIsLeft) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 2));
  const int64_t id = IdOn(servers, 1, 0);
  TestLookup lookup(&servers, {{1, {id}}});
  servers.OpenTo("s0")->Fail(Code::kUnavailable, "connection refused");
  servers.OpenTo("s1")->Refuse(RefusalKind::kNotOwner);
  lookup.ExpectFailure(Code::kUnavailable,
                       {"ranker", "table \"users\" bucket " + std::to_string(id % 31), "no live replica",
                        "s0 (host0:1): UNAVAILABLE: connection refused", "s1 (host1:1): NOT_OWNER: the reason"});
  EXPECT_EQ(lookup.message.find("s2"), std::string::npos);
}

TEST(FanoutFailure, KeepsTheCodeThatAllReplicasGave) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {1}}});
  servers.Open()[0]->Refuse(RefusalKind::kOverloaded);
  servers.Open()[0]->Fail(Code::kResourceExhausted);
  lookup.ExpectFailure(Code::kResourceExhausted, {"no live replica", "OVERLOADED", "RESOURCE_EXHAUSTED"});
}

TEST(FanoutFailure, NeverAsksAServerWithoutAddress) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(2, 1);
  spec.targets[1].address = "";
  servers.MakeRoute(spec);
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 1)}}});
  lookup.ExpectFailure(Code::kUnavailable, {"s1: its address is not known"});
  EXPECT_TRUE(servers.calls.empty());
  // The rest of a lookup that cannot succeed is not sent, or given up.
  TestLookup mixed(&servers, {{0, {IdOn(servers, 0, 0), IdOn(servers, 0, 1)}}});
  mixed.ExpectFailure(Code::kUnavailable, {"s1"});
  EXPECT_TRUE(servers.Open().empty());
}

TEST(FanoutFailure, TreatsAWrongNumberOfBytesAsAFailure) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
  servers.OpenTo("s0")->AnswerBytes("short");
  servers.OpenTo("s1")->AnswerRows();
  lookup.ExpectRows();
  TestLookup garbled(&servers, {{0, {IdOn(servers, 0, 1)}}});
  const auto call = servers.OpenTo("s1");
  call->ended = true;
  const uint8_t garbage[] = {0xFF, 0xFF, 0xFF};
  std::move(call->done)(Status(), garbage, sizeof(garbage));
  servers.OpenTo("s0")->AnswerRows();
  garbled.ExpectRows();
}

TEST(FanoutFailure, AvoidsAServerThatFailedUntilAProbeSucceeds) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  const int64_t id = IdOn(servers, 0, 0);
  {
    TestLookup lookup(&servers, {{0, {id}}});
    servers.OpenTo("s0")->Fail(Code::kUnavailable);
    servers.AnswerAll();
  }
  EXPECT_TRUE(servers.fanout->Stats().servers.at("s0").suspect);
  const auto asked_first = [&] {
    const size_t before = servers.calls.size();
    TestLookup lookup(&servers, {{0, {id}}});
    const std::string server_id = servers.calls.at(before)->server_id;
    servers.AnswerAll();
    lookup.ExpectRows();
    return server_id;
  };
  EXPECT_EQ(asked_first(), "s1");
  servers.now_ns += Suspect::kFirstNs;
  EXPECT_EQ(asked_first(), "s0") << "the probe";
  EXPECT_EQ(asked_first(), "s0") << "trusted again";
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s0").suspect);
}

TEST(FanoutFailure, AvoidsAServerThatIsNoOwnerOnlyOnThatRoute) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  const int64_t id = IdOn(servers, 0, 0);
  TestLookup lookup(&servers, {{0, {id}}});
  servers.OpenTo("s0")->Refuse(RefusalKind::kNotOwner, /*epoch=*/9);
  servers.AnswerAll();
  TestLookup second(&servers, {{0, {id}}});
  EXPECT_EQ(servers.Open().at(0)->server_id, "s1");
  servers.AnswerAll();
  EXPECT_EQ(servers.fanout->Stats().newest_epochs.at("ranker"), 9u);
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup elsewhere(&servers, {{0, {id}}});
  EXPECT_EQ(servers.Open().at(0)->server_id, "s0");
  servers.AnswerAll();
}

TEST(FanoutFailure, AsksASuspectServerWhenItIsTheLast) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  const int64_t id = IdOn(servers, 0, 0);
  TestLookup lookup(&servers, {{0, {id}}});
  servers.OpenTo("s0")->Fail(Code::kUnavailable);
  lookup.ExpectFailure(Code::kUnavailable, {"s0"});
  TestLookup again(&servers, {{0, {id}}});
  servers.OpenTo("s0")->AnswerRows();
  again.ExpectRows();
}

TEST(FanoutFailure, StopsRetryingWhenTheBudgetIsSpent) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.retry_budget_tokens = 3;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(2, 2));
  for (int i = 0; i < 5; ++i) {
    TestLookup lookup(&servers, {{0, {1}}});
    servers.Open().at(0)->Fail(Code::kUnavailable);
    if (i >= 3) {
      lookup.ExpectFailure(Code::kUnavailable, {"retry budget"});
      continue;
    }
    servers.Open().at(0)->Fail(Code::kUnavailable);
    lookup.ExpectFailure(Code::kUnavailable, {"no live replica"});
  }
  EXPECT_EQ(servers.fanout->Stats().retries, 3);
}

TEST(FanoutFailure, LosesNoLookupWhenAServerDiesUnderLoad) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(4, 2));
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int64_t i = 0; i < 900; ++i) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {i, i + 50, i + 99}}}));
  }
  for (const auto& call : servers.Open()) {
    if (call->server_id == "s2") call->Fail(Code::kUnavailable);
  }
  for (const auto& call : servers.Open()) EXPECT_NE(call->server_id, "s2");
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutFailure, EndsWithTheDeadlineAndNamesTheSlowServers) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0), IdOn(servers, 0, 1), IdOn(servers, 0, 2)}}},
                    servers.now_ns + 30 * kMs);
  const auto slow0 = servers.OpenTo("s0"), slow2 = servers.OpenTo("s2");
  servers.OpenTo("s1")->AnswerRows();
  servers.now_ns += 30 * kMs;
  slow0->Fail(Code::kDeadlineExceeded);
  lookup.ExpectFailure(Code::kDeadlineExceeded, {"2 of 3 rows", "s0", "s2"});
  EXPECT_EQ(lookup.message.find("s1"), std::string::npos);
  EXPECT_TRUE(slow2->cancelled);
  slow2->Fail(Code::kDeadlineExceeded);
}

TEST(FanoutFailure, SendsNothingAfterTheDeadline) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {1}}}, servers.now_ns);
  lookup.ExpectFailure(Code::kDeadlineExceeded, {"1 rows"});
  EXPECT_TRUE(servers.calls.empty());
}

TEST(FanoutFailure, TriesAReplicaWhenAServerGivesUpBeforeTheDeadline) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}}, servers.now_ns + 1000 * kMs);
  servers.OpenTo("s0")->Fail(Code::kDeadlineExceeded);
  servers.OpenTo("s1")->AnswerRows();
  lookup.ExpectRows();
}

TEST(FanoutFailure, CancelsItsSubRequests) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0), IdOn(servers, 0, 1)}}});
  servers.OpenTo("s0")->AnswerRows();
  lookup.Cancel();
  lookup.ExpectFailure(Code::kCancelled, {"cancelled"});
  lookup.Cancel();
  const auto cancelled = servers.OpenTo("s1");
  EXPECT_TRUE(cancelled->cancelled);
  cancelled->Fail(Code::kCancelled);
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s1").suspect) << "cancelled by us";
  EXPECT_TRUE(servers.timer->empty());
  EXPECT_EQ(servers.calls.size(), 2u);
}

TEST(FanoutFailure, IgnoresAnAnswerAfterCancellation) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(1, 1));
  std::shared_ptr<FakeCall> call;
  {
    TestLookup lookup(&servers, {{0, {1}}});
    call = servers.OpenTo("s0");
    lookup.Cancel();
  }
  call->AnswerRows();  // the output is gone: writing there would be seen by the sanitizer
}

TEST(FanoutFailure, FailsImmediatelyOverServersThatFailBeforeStartReturns) {
  FakeServers servers;
  servers.on_start = [](FakeCall* call) { call->Fail(Code::kUnavailable); };
  servers.MakeRoute(FakeServers::Spec(4, 3));
  TestLookup lookup(&servers, {{0, {1, 2, 3, 4, 5, 6, 7}}});
  lookup.ExpectFailure(Code::kUnavailable, {"no live replica"});
  EXPECT_TRUE(servers.timer->empty());
  for (const auto& [id, server] : servers.fanout->Stats().servers) EXPECT_EQ(server.in_flight, 0) << id;
}

}  // namespace
}  // namespace tessera
