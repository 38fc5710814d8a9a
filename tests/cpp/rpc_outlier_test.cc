// Servers that do much worse than the others.
#include <gtest/gtest.h>

#include <deque>

#include "cpp_ext/rpc/outlier.h"
#include "tests/cpp/rpc_fake_servers.h"

namespace tessera {
namespace {

constexpr int64_t kSlowNs = 25 * kMs;

class Outliers : public testing::Test {
 protected:
  explicit Outliers(size_t count = 6) : servers_(count) {}

  void Answer(size_t server, int good, int bad, int64_t took_ns = kMs) {
    for (int i = 0; i < good; ++i) servers_[server].OnAnswer(false, took_ns);
    for (int i = 0; i < bad; ++i) servers_[server].OnAnswer(true, took_ns);
  }
  int64_t End(int64_t after_ns = Outlier::kIntervalNs) {
    now_ns_ += after_ns;
    std::vector<Outlier*> all;
    for (Outlier& server : servers_) all.push_back(&server);
    return EjectOutliers(all, kSlowNs, now_ns_);
  }

  std::deque<Outlier> servers_;
  int64_t now_ns_ = 1000 * kMs;
};

TEST_F(Outliers, AServerThatFailsOftenIsEjectedForAWhile) {
  for (size_t i = 0; i < 6; ++i) Answer(i, i == 2 ? 60 : 100, i == 2 ? 40 : 1);
  EXPECT_EQ(End(), 1);
  EXPECT_TRUE(servers_[2].ejected(now_ns_));
  EXPECT_FALSE(servers_[0].ejected(now_ns_));
  EXPECT_FALSE(servers_[2].ejected(now_ns_ + Outlier::kFirstNs));
}

TEST_F(Outliers, FailuresThatAllHaveAreNobodysFault) {
  for (size_t i = 0; i < 6; ++i) Answer(i, 60, 40);
  EXPECT_EQ(End(), 0);
}

TEST_F(Outliers, AFewAnswersSayNothing) {
  for (size_t i = 0; i < 6; ++i) Answer(i, 100, 0);
  static_cast<void>(End());
  Answer(0, 0, static_cast<int>(Outlier::kMinAnswers) - 1);
  for (size_t i = 1; i < 6; ++i) Answer(i, 100, 0);
  EXPECT_EQ(End(), 0) << "and those of the interval before are forgotten";
}

TEST_F(Outliers, AServerThatIsMuchSlowerIsEjectedIfThatMatters) {
  for (size_t i = 0; i < 6; ++i) Answer(i, 100, 0, i == 5 ? 20 * kMs : kMs);
  EXPECT_EQ(End(), 0) << "well below the retry delay";
  for (size_t i = 0; i < 6; ++i) Answer(i, 100, 0, i == 5 ? 40 * kMs : 20 * kMs);
  EXPECT_EQ(End(), 0) << "the others are slow, too";
  for (size_t i = 0; i < 6; ++i) Answer(i, 100, 0, i == 5 ? 40 * kMs : kMs);
  EXPECT_EQ(End(), 1);
  EXPECT_TRUE(servers_[5].ejected(now_ns_));
}

TEST_F(Outliers, AtMostAThirdIsEjected) {
  for (size_t i = 0; i < 6; ++i) Answer(i, i < 3 ? 100 : 10, i < 3 ? 0 : 90);
  EXPECT_EQ(End(), 2);
  for (int round = 0; round < 5; ++round) {
    for (size_t i = 0; i < 6; ++i) Answer(i, 1000, 0, i < 3 ? kMs : 100 * kMs);
    static_cast<void>(End());
    int ejected = 0;
    for (const Outlier& server : servers_) ejected += server.ejected(now_ns_) ? 1 : 0;
    EXPECT_LE(ejected, 2) << round;
    EXPECT_GT(ejected, 0) << round;
  }
}

TEST_F(Outliers, TheTimeGrowsWhileItComesBackNoBetterAndShrinksAgain) {
  const auto bad = [&] {
    for (size_t i = 0; i < 6; ++i) Answer(i, i == 1 ? 10 : 100, i == 1 ? 90 : 0);
  };
  int64_t expected_ns = Outlier::kFirstNs;
  for (int round = 0; round < 6; ++round) {
    bad();
    ASSERT_EQ(End(), 1) << round;
    EXPECT_TRUE(servers_[1].ejected(now_ns_ + expected_ns - 1)) << round;
    EXPECT_FALSE(servers_[1].ejected(now_ns_ + expected_ns)) << round;
    now_ns_ += expected_ns;
    expected_ns = std::min(2 * expected_ns, Outlier::kLongestNs);
  }
  EXPECT_EQ(servers_[1].ejections(), 6);
  for (int round = 0; round < 6; ++round) {
    for (size_t i = 0; i < 6; ++i) Answer(i, 100, 0);
    EXPECT_EQ(End(), 0);
  }
  bad();
  EXPECT_EQ(End(), 1);
  EXPECT_FALSE(servers_[1].ejected(now_ns_ + Outlier::kFirstNs));
}

class TwoServers : public Outliers {
 protected:
  TwoServers() : Outliers(2) {}
};

TEST_F(TwoServers, OneMayBeEjectedAndNotTheOther) {
  Answer(0, 100, 0);
  Answer(1, 10, 90);
  EXPECT_EQ(End(), 1);
  Answer(0, 10, 90);
  EXPECT_EQ(End(), 0);
}

class OneServer : public Outliers {
 protected:
  OneServer() : Outliers(1) {}
};

TEST_F(OneServer, IsNeverEjected) {
  Answer(0, 0, 1000, 1000 * kMs);
  EXPECT_EQ(End(), 0);
}

// A server that fails every third request is forgiven at once by Suspect, with each success.
TEST(FanoutOutlier, IsAskedLastUntilItsTimeIsOver) {
  FakeServers servers;
  servers.MakeRoute(FakeServers::Spec(3, 2));
  const int64_t id = IdOn(servers, 0, 0);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 100; ++i) ids.push_back(i);
  int times = 0;
  const auto ask = [&] {
    TestLookup lookup(&servers, {{0, ids}});
    while (!servers.Open().empty()) {
      const auto call = servers.Open()[0];
      if (call->server_id == "s0" && ++times % 2 == 0) {
        call->Fail(Code::kInternal);
      } else {
        call->AnswerRows();
      }
    }
    lookup.ExpectRows();
    servers.Advance(20 * kMs);
  };
  for (int i = 0; i < 400 && servers.fanout->Stats().ejections == 0; ++i) ask();
  const FanoutStats stats = servers.fanout->Stats();
  EXPECT_EQ(stats.ejections, 1);
  EXPECT_TRUE(stats.servers.at("s0").ejected);
  EXPECT_EQ(stats.servers.at("s0").ejections, 1);
  servers.now_ns += Suspect::kLongestNs / 2;  // the ejection is longer than any suspicion that is left
  while (servers.route->target(0).peer->suspect.suspected()) {
    TestLookup probe(&servers, {{0, {id}}});
    servers.AnswerAll();
    servers.now_ns += Suspect::kFirstNs;
  }
  ASSERT_TRUE(servers.fanout->Stats().servers.at("s0").ejected);
  const auto first_asked = [&] {
    const size_t before = servers.calls.size();
    TestLookup lookup(&servers, {{0, {id}}});
    const std::string server_id = servers.calls.at(before)->server_id;
    servers.AnswerAll();
    return server_id;
  };
  EXPECT_EQ(first_asked(), "s1");
  servers.now_ns += Outlier::kFirstNs;
  EXPECT_EQ(first_asked(), "s0");
}

}  // namespace
}  // namespace tessera
