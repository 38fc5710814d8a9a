#include "cpp_ext/graph/request_log.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "cpp_ext/graph/random.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/wire.h"

namespace tessera {
namespace {

constexpr uint32_t kLogMetadata = 1;
constexpr uint32_t kMetadataModelSpec = 1;
constexpr uint32_t kMetadataSampling = 2;
constexpr uint32_t kMetadataTime = 4;
constexpr uint32_t kSpecName = 1;
constexpr uint32_t kSpecVersion = 2;
constexpr uint32_t kWrappedValue = 1;
constexpr uint32_t kSamplingRate = 1;
constexpr uint32_t kCallRequest = 1;
constexpr uint32_t kCallResponse = 2;
constexpr size_t kDoubleFieldBytes = 1 + sizeof(double);  // a tag below 16 and eight bytes

uint32_t LogField(Method method) {
  switch (method) {
    case Method::kClassify:
      return 2;
    case Method::kRegress:
      return 3;
    case Method::kMultiInference:
      return 4;
    case Method::kPredict:
      break;
  }
  return 6;
}

uint8_t* WriteDoubleField(uint32_t field, double value, uint8_t* to) {
  return WriteBytes(&value, sizeof(value), WriteVarint((field << 3) | 1, to));  // wire type 1: 64 bits
}

}  // namespace

std::string EncodePredictionLog(const AnsweredRequest& answered, absl::string_view model, double sampling_rate,
                                int64_t unix_time_s) {
  const auto version = static_cast<uint64_t>(answered.version->version());
  const auto time = static_cast<uint64_t>(unix_time_s);
  const uint32_t field = LogField(answered.method);
  const size_t version_bytes = VarintFieldSize(kWrappedValue, version);
  const size_t spec_bytes = DelimitedSize(kSpecName, model.size()) + DelimitedSize(kSpecVersion, version_bytes);
  const size_t metadata_bytes = DelimitedSize(kMetadataModelSpec, spec_bytes) +
                                DelimitedSize(kMetadataSampling, kDoubleFieldBytes) +
                                VarintFieldSize(kMetadataTime, time);
  const size_t call_bytes =
      DelimitedSize(kCallRequest, answered.request.size()) + DelimitedSize(kCallResponse, answered.response.size());
  std::string log(DelimitedSize(kLogMetadata, metadata_bytes) + DelimitedSize(field, call_bytes), '\0');
  auto* to = reinterpret_cast<uint8_t*>(log.data());
  to = WriteDelimitedHeader(kLogMetadata, metadata_bytes, to);
  to = WriteDelimitedHeader(kMetadataModelSpec, spec_bytes, to);
  to = WriteDelimited(kSpecName, model, to);
  to = WriteDelimitedHeader(kSpecVersion, version_bytes, to);
  to = WriteVarintField(kWrappedValue, version, to);
  to = WriteDelimitedHeader(kMetadataSampling, kDoubleFieldBytes, to);
  to = WriteDoubleField(kSamplingRate, sampling_rate, to);
  to = WriteVarintField(kMetadataTime, time, to);
  to = WriteDelimitedHeader(field, call_bytes, to);
  to = WriteDelimited(kCallRequest, answered.request, to);
  WriteDelimited(kCallResponse, answered.response, to);
  return log;
}

void RequestLog::OnAnswer(const AnsweredRequest& answered) {
  if (!answered.status->ok() || !Sample(options_.sampling_rate)) return;
  // Asked before the copy is made: what will be dropped must not cost one.
  const size_t bytes = answered.request.size() + answered.response.size();
  if (bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes > options_.max_bytes) {
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  std::string log =
      EncodePredictionLog(answered, options_.model, options_.sampling_rate, absl::ToUnixSeconds(absl::Now()));
  bool added = false;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (!closed_ && waiting_.size() < options_.max_records) {
      waiting_.emplace_back(std::move(log), bytes);
      added = true;
    }
  }
  if (added) {
    sampled_.fetch_add(1, std::memory_order_relaxed);
    return wake_.notify_one();
  }
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  dropped_.fetch_add(1, std::memory_order_relaxed);
}

std::vector<std::string> RequestLog::Take(absl::Duration timeout) {
  std::deque<Waiting> taken;
  {
    std::unique_lock<std::mutex> lock(mu_);
    wake_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return closed_ || !waiting_.empty(); });
    taken.swap(waiting_);
  }
  std::vector<std::string> logs;
  for (Waiting& one : taken) {
    bytes_.fetch_sub(one.second, std::memory_order_relaxed);
    logs.push_back(std::move(one.first));
  }
  return logs;
}

void RequestLog::Close() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    closed_ = true;
  }
  wake_.notify_all();
}

RequestLogCounts RequestLog::counts() const {
  return {sampled_.load(std::memory_order_relaxed), dropped_.load(std::memory_order_relaxed)};
}

}  // namespace tessera
