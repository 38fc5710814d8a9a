// Sends a copy of answered requests to another version of their model, and compares the answers.
#ifndef TESSERA_CPP_EXT_GRAPH_SHADOW_H_
#define TESSERA_CPP_EXT_GRAPH_SHADOW_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cpp_ext/graph/answer_compare.h"
#include "cpp_ext/graph/predictor.h"

namespace tessera {

struct ShadowOptions {
  std::string model;  // for messages
  std::string label;  // of the version that gets the copies; empty: `version` is meant
  int64_t version = -1;
  double percent = 100;          // of the successful requests that another version answered
  double tolerance = 0;          // see CompareAnswers
  int64_t max_in_flight = 16;    // copies; what would be one more is dropped
  int64_t max_bytes = 64 << 20;  // of the messages that copies in flight hold; likewise
  int64_t timeout_ns = 10'000'000'000;
};

struct ShadowCounts {
  uint64_t equal = 0;
  uint64_t different = 0;
  uint64_t failed = 0;   // the other version answered with an error, or not in time
  uint64_t dropped = 0;  // too many were in flight
  int64_t in_flight = 0;
};

// Thread-safe. A request that is copied costs its own thread the copy of its two messages; everything else happens on
// one thread for all shadows of the process, so that copies cannot take more than a core from the requests.
class Shadow final : public AnswerHook, public std::enable_shared_from_this<Shadow> {
 public:
  // The copies go to `predictor`, as long as somebody else holds it. REQUIRES: held by a shared_ptr.
  Shadow(std::weak_ptr<Predictor> predictor, ShadowOptions options)
      : predictor_(std::move(predictor)), options_(std::move(options)) {}

  void OnAnswer(const AnsweredRequest& answered) override;
  ShadowCounts counts() const;

 private:
  struct Copy;

  bool IsTarget(const ServedVersion& version) const;
  void Send(const std::shared_ptr<const Copy>& copy);
  void Compare(const Copy& copy, const absl::Status& status, absl::string_view response);
  // Logs at most one message every ten seconds.
  void Tell(const Copy& copy, absl::string_view text);
  void End(int64_t bytes);

  const std::weak_ptr<Predictor> predictor_;
  const ShadowOptions options_;
  std::atomic<uint64_t> equal_{0};
  std::atomic<uint64_t> different_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<int64_t> in_flight_{0};
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> quiet_until_ns_{0};
};

// Returns the request of `method` changed to name `version`, or `label` where that is not empty, instead of what it
// names. INVALID_ARGUMENT: it cannot be parsed.
absl::StatusOr<std::string> RequestForVersion(Method method, absl::string_view request, int64_t version,
                                              absl::string_view label);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_SHADOW_H_
