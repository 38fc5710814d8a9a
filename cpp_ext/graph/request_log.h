// Keeps records of sampled requests and their answers until a writer takes them.
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_LOG_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_LOG_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cpp_ext/graph/answer_hook.h"

namespace tessera {

struct RequestLogOptions {
  std::string model;          // for the records
  double sampling_rate = 0;   // share of the successful requests, 0 to 1
  size_t max_records = 1024;  // that wait; further ones are dropped
  size_t max_bytes = 64 << 20;
};

struct RequestLogCounts {
  uint64_t sampled = 0;  // records that were made
  uint64_t dropped = 0;  // requests that were sampled while too much waited
};

// Thread-safe. A request that is not sampled costs a random number; one that is, the copy of its two messages.
class RequestLog final : public AnswerHook {
 public:
  explicit RequestLog(RequestLogOptions options) : options_(std::move(options)) {}

  void OnAnswer(const AnsweredRequest& answered) override;
  // Returns serialized PredictionLogs, the oldest first, as soon as there are any, and nothing after `timeout` or
  // Close. For one writer.
  std::vector<std::string> Take(absl::Duration timeout);
  // Makes Take return at once from now on; what waits can still be taken, nothing is added.
  void Close();
  RequestLogCounts counts() const;

 private:
  using Waiting = std::pair<std::string, size_t>;  // a record, and what it counts in bytes_

  const RequestLogOptions options_;
  std::atomic<uint64_t> sampled_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<size_t> bytes_{0};  // of messages that wait, or are being copied in order to
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<Waiting> waiting_;  // guarded by mu_
  bool closed_ = false;          // guarded by mu_
};

// Serializes a tensorflow.serving.PredictionLog of a successful request.
std::string EncodePredictionLog(const AnsweredRequest& answered, absl::string_view model, double sampling_rate,
                                int64_t unix_time_s);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_LOG_H_
