// Which of several replicas gets a row.
#include <gtest/gtest.h>

#include <map>

#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

// A route with one slot, so that every row has the same replicas.
RouteSpec OneSlot(size_t servers) { return FakeServers::Spec(servers, servers, 1); }

TEST(ReplicaChoice, KeepsToTheFirstReplicaWhileNobodyHasMoreToDo) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  for (int64_t id = 0; id < 20; ++id) {
    TestLookup lookup(&servers, {{0, {id}}});
    EXPECT_EQ(servers.Open().at(0)->server_id, "s0");
    servers.AnswerAll();
  }
}

TEST(ReplicaChoice, TakesTheOneWithLessToDo) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  std::map<std::string, int> asked;
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int64_t id = 0; id < 40; ++id) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {id}}}));
    ++asked[servers.calls.back()->server_id];
  }
  EXPECT_EQ(asked["s0"], 20);
  EXPECT_EQ(asked["s1"], 20);
  servers.AnswerAll();
}

TEST(ReplicaChoice, LeavesAServerThatIsSlowToTheOthers) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  TestLookup slow(&servers, {{0, {1}}});
  for (int64_t id = 0; id < 20; ++id) {
    TestLookup lookup(&servers, {{0, {id}}});
    EXPECT_EQ(servers.calls.back()->server_id, "s1");
    servers.OpenTo("s1")->AnswerRows();
  }
  servers.AnswerAll();
  TestLookup lookup(&servers, {{0, {1}}});
  EXPECT_EQ(servers.calls.back()->server_id, "s0") << "what was done is forgotten";
  servers.AnswerAll();
}

TEST(ReplicaChoice, WeighsBytesAndNotOnlyRequests) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  std::vector<int64_t> many;
  for (int64_t id = 0; id < 4000; ++id) many.push_back(id);
  TestLookup large(&servers, {{1, many}});  // 80 kB on s0
  std::vector<std::unique_ptr<TestLookup>> small;
  for (int64_t id = 0; id < 10; ++id) {
    small.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {id}}}));
    EXPECT_EQ(servers.calls.back()->server_id, "s1") << id;
  }
  servers.AnswerAll();
}

TEST(ReplicaChoice, SpreadsOverAllOfManyReplicas) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(4));
  std::map<std::string, int> asked;
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int64_t id = 0; id < 400; ++id) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {id}}}));
    ++asked[servers.calls.back()->server_id];
  }
  // Two choices keep the others close to the mean, of which the first is always one.
  for (const auto& [server, count] : asked) EXPECT_GT(count, 50) << server;
  EXPECT_EQ(asked.size(), 4u);
  servers.AnswerAll();
}

TEST(ReplicaChoice, CountsWhatWaitsInAQueueToo) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_in_flight_lookups_per_server = 1;
  FakeServers servers(options);
  servers.MakeRoute(OneSlot(2));
  std::vector<std::unique_ptr<TestLookup>> lookups;
  for (int64_t id = 0; id < 20; ++id) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {id}}}));
  }
  while (!servers.Open().empty()) servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
  EXPECT_EQ(servers.fanout->Stats().servers.at("s0").subrequests, 10);
  EXPECT_EQ(servers.fanout->Stats().servers.at("s1").subrequests, 10);
}

TEST(ReplicaChoice, ForgetsWorkThatWasWithdrawnCancelledOrFailed) {
  FanoutOptions options = FakeServers::DefaultOptions();
  options.max_in_flight_lookups_per_server = 1;
  FakeServers servers(options);
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const auto work = [&] { return servers.route->target(0).peer->work.load(); };
  TestLookup first(&servers, {{0, {1}}}), second(&servers, {{0, {2}}}), third(&servers, {{0, {3}}});
  EXPECT_GT(work(), 0);
  second.Cancel();  // waits in the queue
  first.Cancel();   // is in flight
  servers.Open().at(0)->Fail(Code::kCancelled);
  servers.Open().at(0)->Fail(Code::kUnavailable);
  EXPECT_EQ(work(), 0);
}

TEST(ReplicaChoice, AsksAServerThatIsOnItsWayOutOnlyWhenItIsTheLast) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  servers.fanout->Avoid({"s0"});
  EXPECT_TRUE(servers.fanout->Stats().servers.at("s0").avoided);
  TestLookup lookup(&servers, {{0, {1}}});
  EXPECT_EQ(servers.calls.back()->server_id, "s1");
  servers.OpenTo("s1")->Fail(Code::kUnavailable);
  servers.OpenTo("s0")->AnswerRows();
  lookup.ExpectRows();
  TestLookup next(&servers, {{0, {1}}});
  EXPECT_EQ(servers.calls.back()->server_id, "s0") << "the other has failed, this one has not";
  servers.AnswerAll();
  servers.fanout->Avoid({});
  servers.now_ns += Suspect::kLongestNs;
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s0").avoided);
}

TEST(ReplicaChoice, AvoidsAServerAlsoWhenARouteComesLater) {
  FakeServers servers;
  servers.fanout->Avoid({"s0", "unheard of"});
  servers.MakeRoute(OneSlot(2));
  TestLookup lookup(&servers, {{0, {1}}});
  EXPECT_EQ(servers.calls.back()->server_id, "s1");
  servers.AnswerAll();
}

TEST(ReplicaChoice, SendsAProbeToASuspectThatIsNotTheFirstReplica) {
  FakeServers servers;
  servers.MakeRoute(OneSlot(2));
  TestLookup busy(&servers, {{0, {1}}});
  TestLookup failed(&servers, {{0, {2}}});
  servers.OpenTo("s1")->Fail(Code::kUnavailable);
  servers.AnswerAll();
  EXPECT_TRUE(servers.fanout->Stats().servers.at("s1").suspect);
  servers.now_ns += Suspect::kFirstNs;
  TestLookup probe(&servers, {{0, {3}}});
  EXPECT_EQ(servers.calls.back()->server_id, "s1");
  servers.AnswerAll();
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s1").suspect);
}

}  // namespace
}  // namespace tessera
