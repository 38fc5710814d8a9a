// Members of merged lookups are on their own: cancelled, timed out, refused, sent elsewhere one by one.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/cpp/rpc_merge_fixture.h"

namespace tessera {
namespace {

// --- A member on its own -------------------------------------------------------------------------------------------

TEST(FanoutMerge, ACancelledMemberThatWaitsIsNeverAskedFor) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3, 4});
  lookups[2]->Cancel();
  lookups[2]->ExpectFailure(Code::kCancelled, {"cancelled"});
  servers.calls[0]->AnswerRows();
  EXPECT_EQ(Ids(*servers.calls.at(1)), (U64s{2, 4}));
  servers.AnswerAll();
  for (const size_t i : {0, 1, 3}) lookups[i]->ExpectRows();
}

TEST(FanoutMerge, ACancelledMemberLeavesTheRpcToTheOthers) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3});
  servers.calls[0]->AnswerRows();
  lookups[1]->Cancel();
  lookups[1]->ExpectFailure(Code::kCancelled, {"cancelled"});
  EXPECT_FALSE(servers.calls.at(1)->cancelled);
  servers.AnswerAll();
  lookups[2]->ExpectRows();
}

TEST(FanoutMerge, TheRpcIsCancelledWhenNoMemberIsLeft) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3, 4});
  servers.calls[0]->AnswerRows();
  Lookups next = Start(&servers, {5});
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_FALSE(servers.calls.at(1)->cancelled);
    lookups[i]->Cancel();
  }
  EXPECT_TRUE(servers.calls[1]->cancelled);
  servers.calls[1]->Fail(Code::kCancelled);
  EXPECT_EQ(Ids(*servers.calls.at(2)), (U64s{5}));
  EXPECT_FALSE(servers.fanout->Stats().servers.at("s0").suspect) << "cancelled by us";
  servers.AnswerAll();
  next[0]->ExpectRows();
}

TEST(FanoutMerge, TheRpcHasTheLatestDeadlineAndEachMemberKeepsItsOwn) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const int64_t now_ns = servers.now_ns;
  const Lookups first = Start(&servers, {1}, now_ns + 500 * kMs);
  const Lookups early = Start(&servers, {2}, now_ns + 10 * kMs);
  const Lookups late = Start(&servers, {3}, now_ns + 90 * kMs);
  const Lookups middle = Start(&servers, {4}, now_ns + 40 * kMs);
  servers.calls[0]->AnswerRows();
  EXPECT_EQ(servers.calls.at(1)->deadline_ns, now_ns + 90 * kMs);
  servers.Advance(10 * kMs - 1);
  EXPECT_EQ(early[0]->done_count, 0);
  servers.Advance(1);
  early[0]->ExpectFailure(Code::kDeadlineExceeded, {"1 of 1 rows", "s0"});
  EXPECT_EQ(middle[0]->done_count, 0);
  servers.Advance(30 * kMs);
  middle[0]->ExpectFailure(Code::kDeadlineExceeded, {"s0"});
  EXPECT_FALSE(servers.calls[1]->cancelled);
  servers.AnswerAll();
  late[0]->ExpectRows();
  EXPECT_TRUE(servers.timer->empty());
}

TEST(FanoutMerge, ADeadlinePassesWhileWaiting) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups stuck = Start(&servers, {1});
  const Lookups waiting = Start(&servers, {2, 3}, servers.now_ns + 20 * kMs);
  servers.Advance(20 * kMs);
  for (const auto& lookup : waiting) lookup->ExpectFailure(Code::kDeadlineExceeded, {"1 of 1 rows", "s0"});
  servers.AnswerAll();
  EXPECT_EQ(servers.calls.size(), 1u) << "what is over is not sent";
}

TEST(FanoutMerge, AMemberWithoutADeadlineGivesTheRpcNone) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups first = Start(&servers, {1});
  const Lookups some = Start(&servers, {2}, servers.now_ns + 10 * kMs);
  const Lookups none = Start(&servers, {3});
  servers.calls[0]->AnswerRows();
  EXPECT_EQ(servers.calls.at(1)->deadline_ns, TESSERA_NO_DEADLINE);
  servers.AnswerAll();
}

// --- Failures ------------------------------------------------------------------------------------------------------

TEST(FanoutMerge, EveryMemberOfAFailedRpcGoesToItsReplicas) {
  FakeServers servers(Merging(1));
  RouteSpec spec = FakeServers::Spec(3, 1, 2);
  spec.slots = {{0, 1}, {0, 2}};
  servers.MakeRoute(spec);
  servers.fanout->Avoid({"s1", "s2"});  // so that all is asked of s0, however much that is
  std::vector<int64_t> ids(40);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  const Lookups lookups = Start(&servers, ids);
  servers.calls[0]->AnswerRows();
  ASSERT_EQ(Ids(*servers.calls.at(1)).size(), 39u);
  servers.calls[1]->Fail(Code::kUnavailable);
  EXPECT_EQ(servers.fanout->Stats().retries, 39);
  EXPECT_EQ(servers.fanout->Stats().servers.at("s0").failures, 1);
  while (!servers.Open().empty()) servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
  EXPECT_LE(servers.fanout->Stats().rpcs, 6) << "retries are merged too";
}

TEST(FanoutMerge, MembersOfABadRequestAreSentAgainAlone) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(2, 2));
  servers.fanout->Avoid({"s1"});
  const int64_t id = IdOn(servers, 0, 0);
  const Lookups lookups = Start(&servers, {id, id, id, id});
  servers.OpenTo("s0")->AnswerRows();
  lookups[2]->Cancel();
  const Lookups later = Start(&servers, {id, id});
  servers.OpenTo("s0")->Refuse(RefusalKind::kBadRequest);
  EXPECT_EQ(lookups[1]->done_count + lookups[3]->done_count, 0);
  EXPECT_EQ(Ids(*servers.OpenTo("s0")).size(), 1u);
  servers.OpenTo("s0")->Refuse(RefusalKind::kBadRequest);
  lookups[1]->ExpectFailure(Code::kInternal, {"BAD_REQUEST"});
  EXPECT_EQ(Ids(*servers.OpenTo("s0")).size(), 1u);
  servers.OpenTo("s0")->AnswerRows();
  lookups[3]->ExpectRows();
  EXPECT_EQ(Ids(*servers.OpenTo("s0")).size(), 2u) << "those behind are merged as before";
  servers.AnswerAll();
  for (const auto& lookup : later) lookup->ExpectRows();
  EXPECT_EQ(servers.fanout->Stats().retries, 0);
}

TEST(FanoutMerge, AMemberCancelledWhileItWaitsToBeSentAloneIsNotSent) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3});
  servers.calls[0]->AnswerRows();
  servers.calls.at(1)->Refuse(RefusalKind::kBadRequest);
  lookups[2]->Cancel();
  servers.calls.at(2)->AnswerRows();
  lookups[1]->ExpectRows();
  EXPECT_EQ(servers.calls.size(), 3u);
}

TEST(FanoutMerge, MembersOfATooLargeRpcAreSentAgainAlone) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3});
  servers.calls[0]->AnswerRows();
  servers.calls.at(1)->Fail(Code::kResourceExhausted);  // takes smaller messages than this side sends
  while (!servers.Open().empty()) servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, AWrongNumberOfBytesIsNobodysRows) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(2, 2));
  servers.fanout->Avoid({"s1"});
  const int64_t id = IdOn(servers, 0, 0);
  const Lookups lookups = Start(&servers, {id, id, id});
  servers.OpenTo("s0")->AnswerRows();
  servers.OpenTo("s0")->AnswerBytes(std::string(8, 'x'));
  while (!servers.Open().empty()) servers.AnswerAll();
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, WhatWaitsTooLongIsAskedElsewhere) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(2, 2));
  const int64_t id = IdOn(servers, 0, 0);
  const Lookups lookups = Start(&servers, {id, id, id});
  servers.Advance(kRetryDelayNs);
  while (!servers.Open().empty() && servers.OpenTo("s1") != nullptr) {
    servers.OpenTo("s1")->AnswerRows();
    bool more = false;
    for (const auto& call : servers.Open()) more = more || call->server_id == "s1";
    if (!more) break;
  }
  for (const auto& lookup : lookups) lookup->ExpectRows();
  const auto stuck = servers.OpenTo("s0");
  EXPECT_TRUE(stuck->cancelled);
  stuck->Fail(Code::kCancelled);
  EXPECT_TRUE(servers.Open().empty()) << "what waited behind it is not sent any more";
}

TEST(FanoutMerge, LosesNoLookupWhenAServerDiesUnderLoad) {
  FakeServers servers(Merging(2));
  servers.MakeRoute(FakeServers::Spec(4, 2));
  Lookups lookups;
  for (int64_t i = 0; i < 900; ++i) {
    lookups.push_back(std::make_unique<TestLookup>(&servers, std::vector<TestLookup::Ids>{{0, {i, i + 50, i + 99}}}));
  }
  while (!servers.Open().empty()) {
    for (const auto& call : servers.Open()) {
      if (call->server_id == "s2") {
        call->Fail(Code::kUnavailable);
      } else {
        call->AnswerRows();
      }
    }
  }
  for (const auto& lookup : lookups) lookup->ExpectRows();
}

TEST(FanoutMerge, StopEndsWhatWaitsAndSendsNothingMore) {
  FakeServers servers(Merging(1));
  servers.MakeRoute(FakeServers::Spec(1, 1));
  const Lookups lookups = Start(&servers, {1, 2, 3});
  for (const auto& lookup : lookups) lookup->Cancel();
  servers.calls[0]->Fail(Code::kCancelled);
  servers.fanout->Stop();
  for (const auto& lookup : lookups) lookup->ExpectFailure(Code::kCancelled, {});
  EXPECT_EQ(servers.calls.size(), 1u);
}

}  // namespace
}  // namespace tessera
