// What many threads do to the traffic's shared state, and the requests that copies are.
#include "cpp_ext/graph/traffic.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/shadow.h"

namespace tessera {
namespace {

constexpr int kThreads = 4;

void OnThreads(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(TrafficSplit, CountsWhatAllThreadsChose) {
  const auto split = *TrafficSplit::Make({{"", 1, 40}, {"", 2, 60}}, "");
  const std::vector<char> available = {true, true};
  constexpr uint64_t kEach = 20'000;
  OnThreads([&](int) {
    for (uint64_t i = 0; i < kEach; ++i) split->Choose(available, "");
  });
  const auto one = split->counts(0).chosen, two = split->counts(1).chosen;
  EXPECT_EQ(one + two, kThreads * kEach);
  EXPECT_NEAR(static_cast<double>(one) / (kThreads * kEach), 0.4, 0.02);  // eleven standard deviations
}

TEST(Shadow, ACopyNamesTheOtherVersion) {
  const std::string request = "\x0a\x0c\x0a\x01m\x12\x02\x08\x07\x1a\x03sig";  // version 7
  RequestView view;
  const std::string numbered = *RequestForVersion(Method::kPredict, request, 9, "");
  ASSERT_TRUE(ParseRequest(Method::kPredict, numbered, &view).ok());
  EXPECT_EQ(view.model, "m");
  EXPECT_EQ(view.choice, RequestView::Choice::kVersion);
  EXPECT_EQ(view.version, 9);
  const std::string labelled = *RequestForVersion(Method::kPredict, request, -1, "canary");
  view.Clear();
  ASSERT_TRUE(ParseRequest(Method::kPredict, labelled, &view).ok());
  EXPECT_EQ(view.choice, RequestView::Choice::kLabel);
  EXPECT_EQ(view.label, "canary");
  EXPECT_FALSE(RequestForVersion(Method::kMultiInference, "\x0a\x7f", 9, "").ok());
}

}  // namespace
}  // namespace tessera
