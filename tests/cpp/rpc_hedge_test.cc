// Servers that do not answer within the retry delay.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

TEST(FanoutHedge, AsksAReplicaTooAfterTheRetryDelay) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0), IdOn(servers, 0, 1)}}});
  servers.OpenTo("s1")->AnswerRows();
  const auto late = servers.OpenTo("s0");
  servers.Advance(kRetryDelayNs - 1);
  EXPECT_EQ(servers.calls.size(), 2u);
  servers.Advance(1);
  ASSERT_EQ(servers.calls.size(), 3u);
  EXPECT_EQ(servers.calls[2]->server_id, "s1");
  EXPECT_EQ(servers.calls[2]->Asked(), late->Asked());
  servers.calls[2]->AnswerRows();
  lookup.ExpectRows();
  EXPECT_TRUE(late->cancelled);
  late->Fail(Code::kCancelled);
  EXPECT_EQ(servers.fanout->Stats().hedges, 1);
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s0").suspect);
}

TEST(FanoutHedge, TakesTheLateAnswerWhenItComesFirst) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  std::shared_ptr<FakeCall> hedge;
  {
    TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
    servers.Advance(kRetryDelayNs);
    hedge = servers.OpenTo("s1");
    servers.OpenTo("s0")->AnswerRows();
    lookup.ExpectRows();
    EXPECT_TRUE(hedge->cancelled);
  }
  hedge->AnswerRows();  // too late, and the output is gone
}

TEST(FanoutHedge, TakesPartsOfAHedgeThatWentToSeveralServers) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(3, 1, 2);
  spec.slots = {{0, 1}, {0, 2}};
  servers.MakeRoute(spec);
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < 40; ++id) ids.push_back(id);
  TestLookup lookup(&servers, {{0, ids}});
  servers.Advance(kRetryDelayNs);
  ASSERT_EQ(servers.Open().size(), 3u);
  servers.OpenTo("s1")->AnswerRows();
  EXPECT_EQ(lookup.done_count, 0);
  servers.OpenTo("s0")->AnswerRows();
  lookup.ExpectRows();
  servers.OpenTo("s2")->Fail(Code::kCancelled);
}

TEST(FanoutHedge, RetriesOnlyTheRowsThatAreStillMissing) {
  FakeServers servers;
  RouteSpec spec = FakeServers::Spec(4, 1, 2);
  spec.slots = {{0, 1}, {0, 2, 3}};
  servers.MakeRoute(spec);
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < 40; ++id) ids.push_back(id);
  TestLookup lookup(&servers, {{0, ids}});
  servers.Advance(kRetryDelayNs);
  const auto retried = servers.OpenTo("s2")->Asked();
  servers.OpenTo("s1")->AnswerRows();
  servers.OpenTo("s2")->Fail(Code::kUnavailable);
  servers.OpenTo("s0")->Fail(Code::kUnavailable);
  EXPECT_EQ(servers.OpenTo("s3")->Asked(), retried);
  servers.OpenTo("s3")->AnswerRows();
  lookup.ExpectRows();
}

TEST(FanoutHedge, WaitsForTheOtherWhenOneOfTwoFails) {
  for (const bool first_fails : {false, true}) {
    FakeServers servers;
    servers.MakeRoute(FakeServers::Spec(2, 2));
    TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
    servers.Advance(kRetryDelayNs);
    servers.OpenTo(first_fails ? "s0" : "s1")->Fail(Code::kUnavailable);
    EXPECT_EQ(lookup.done_count, 0);
    EXPECT_EQ(servers.calls.size(), 2u);
    servers.OpenTo(first_fails ? "s1" : "s0")->AnswerRows();
    lookup.ExpectRows();
  }
}

TEST(FanoutHedge, FailsWhenBothFail) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
  servers.Advance(kRetryDelayNs);
  servers.OpenTo("s1")->Fail(Code::kUnavailable);
  servers.OpenTo("s0")->Fail(Code::kUnavailable);
  lookup.ExpectFailure(Code::kUnavailable, {"no live replica", "s0", "s1"});
}

TEST(FanoutHedge, GoesOnToAThirdReplica) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 3));
  TestLookup lookup(&servers, {{0, {IdOn(servers, 0, 0)}}});
  servers.Advance(kRetryDelayNs);
  servers.Advance(kRetryDelayNs);
  EXPECT_EQ(servers.Open().size(), 3u);
  servers.Advance(kRetryDelayNs);
  EXPECT_EQ(servers.Open().size(), 3u);
  servers.OpenTo("s2")->AnswerRows();
  lookup.ExpectRows();
  for (const auto& call : servers.Open()) call->Fail(Code::kCancelled);
}

TEST(FanoutHedge, AvoidsAServerThatWasLateTwice) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  const int64_t id = IdOn(servers, 0, 0);
  for (int i = 0; i < 2; ++i) {
    TestLookup lookup(&servers, {{0, {id}}});
    const auto stopped = servers.OpenTo("s0");
    servers.Advance(kRetryDelayNs);
    servers.OpenTo("s1")->AnswerRows();
    lookup.ExpectRows();
    stopped->Fail(Code::kCancelled);
  }
  TestLookup lookup(&servers, {{0, {id}}});
  EXPECT_EQ(servers.Open().at(0)->server_id, "s1");
  servers.AnswerAll();
}

TEST(FanoutHedge, DoesNotHedgeWithoutReplicasNorKeepATimer) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 1));
  TestLookup lookup(&servers, {{0, {1}}});
  EXPECT_TRUE(servers.timer->empty());
  servers.AnswerAll();
}

TEST(FanoutHedge, LeavesHalfOfTheBudgetToFailures) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.retry_budget_tokens = 4;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(2, 2));
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int i = 0; i < 10; ++i) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {1}}}));
  }
  servers.Advance(kRetryDelayNs);
  EXPECT_EQ(servers.fanout->Stats().hedges, 3);
  servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutHedge, EndsAnotherThreadsStopWhenTheLastCallEnds) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(2, 2));
  TestLookup lookup(&servers, {{0, {1}}});
  servers.Advance(kRetryDelayNs);
  const auto open = servers.Open();
  ASSERT_EQ(open.size(), 2u);
  // Stop cancels on its own thread; the calls end here afterwards.
  std::atomic<bool> stopped{false};
  std::thread stopper([&] {
    servers.fanout->Stop();
    stopped = true;
  });
  while (servers.fanout->Stats().failures == 0) std::this_thread::yield();
  EXPECT_FALSE(stopped);
  open[0]->Fail(Code::kCancelled);
  EXPECT_FALSE(stopped);
  open[1]->Fail(Code::kCancelled);
  stopper.join();
  lookup.ExpectFailure(Code::kCancelled, {"cancelled"});
}

}  // namespace
}  // namespace tessera
