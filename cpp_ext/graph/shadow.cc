#include "cpp_ext/graph/shadow.h"

#include <time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/local_call.h"
#include "cpp_ext/graph/random.h"
#include "cpp_ext/graph/wire.h"
#include "cpp_ext/graph/worker_pool.h"
#include "protozero/pbf_reader.hpp"
#include "tensorflow/core/platform/logging.h"

namespace tessera {
namespace {

constexpr int64_t kQuietNs = 10'000'000'000;
constexpr uint32_t kModelSpec = 1;  // of a request, and of a task of MultiInference
constexpr uint32_t kTasks = 1;
constexpr uint32_t kSpecVersion = 2;
constexpr uint32_t kSpecLabel = 4;
constexpr uint32_t kWrappedValue = 1;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// One thread; what waits is bounded by the shadows' own limits.
WorkerPool& ShadowThread() {
  static WorkerPool* pool = new WorkerPool(/*threads=*/1, std::numeric_limits<size_t>::max());
  return *pool;
}

// A field `model_spec` with nothing but the version: behind a message it is merged into the one that is there.
std::string SpecOfVersion(int64_t version, absl::string_view label) {
  const auto number = static_cast<uint64_t>(version);
  const size_t wrapped_bytes = VarintFieldSize(kWrappedValue, number);
  const size_t spec_bytes =
      label.empty() ? DelimitedSize(kSpecVersion, wrapped_bytes) : DelimitedSize(kSpecLabel, label.size());
  std::string spec(DelimitedSize(kModelSpec, spec_bytes), '\0');
  uint8_t* to = WriteDelimitedHeader(kModelSpec, spec_bytes, reinterpret_cast<uint8_t*>(spec.data()));
  if (!label.empty()) {
    WriteDelimited(kSpecLabel, label, to);
  } else {
    WriteVarintField(kWrappedValue, number, WriteDelimitedHeader(kSpecVersion, wrapped_bytes, to));
  }
  return spec;
}

void AppendField(uint32_t field, absl::string_view payload, absl::string_view suffix, std::string* to) {
  uint8_t header[20];
  const uint8_t* end = WriteDelimitedHeader(field, payload.size() + suffix.size(), header);
  to->append(reinterpret_cast<const char*>(header), static_cast<size_t>(end - header));
  absl::StrAppend(to, payload, suffix);
}

}  // namespace

absl::StatusOr<std::string> RequestForVersion(Method method, absl::string_view request, int64_t version,
                                              absl::string_view label) {
  const std::string spec = SpecOfVersion(version, label);
  if (method != Method::kMultiInference) return absl::StrCat(request, spec);
  std::string changed;
  try {
    protozero::pbf_reader fields(request.data(), request.size());
    while (fields.next()) {
      if (fields.wire_type() != protozero::pbf_wire_type::length_delimited) {
        fields.skip();  // the message has no such field: nothing would read it
        continue;
      }
      const auto payload = fields.get_view();
      AppendField(fields.tag(), {payload.data(), payload.size()}, fields.tag() == kTasks ? spec : "", &changed);
    }
  } catch (const protozero::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the request cannot be parsed: ", error.what()));
  }
  return changed;
}

struct Shadow::Copy {
  Method method;
  int64_t version;  // that answered
  std::string request;
  std::string response;

  int64_t bytes() const { return static_cast<int64_t>(request.size() + response.size()); }
};

bool Shadow::IsTarget(const ServedVersion& version) const {
  if (options_.label.empty()) return version.version() == options_.version;
  return std::find(version.labels().begin(), version.labels().end(), options_.label) != version.labels().end();
}

void Shadow::OnAnswer(const AnsweredRequest& answered) {
  if (!answered.status->ok() || IsTarget(*answered.version) || !Sample(options_.percent / 100)) return;
  const auto bytes = static_cast<int64_t>(answered.request.size() + answered.response.size());
  const int64_t before = in_flight_.fetch_add(1, std::memory_order_relaxed);
  const int64_t bytes_before = bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (before >= options_.max_in_flight || bytes_before + bytes > options_.max_bytes) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return End(bytes);
  }
  auto copy = std::make_shared<const Copy>(Copy{answered.method, answered.version->version(),
                                                std::string(answered.request), std::string(answered.response)});
  ShadowThread().Submit([self = shared_from_this(), copy = std::move(copy)] { self->Send(copy); });
}

void Shadow::Send(const std::shared_ptr<const Copy>& copy) {
  std::shared_ptr<Predictor> predictor = predictor_.lock();
  if (predictor == nullptr) return End(copy->bytes());  // the process is about to end
  absl::StatusOr<std::string> request =
      RequestForVersion(copy->method, copy->request, options_.version, options_.label);
  if (!request.ok()) {
    Compare(*copy, request.status(), {});
    return End(copy->bytes());
  }
  LocalCallOptions options;
  options.deadline_ns = NowNs() + options_.timeout_ns;
  TesseraHandler* handler = predictor->handler(copy->method);
  auto done = [self = shared_from_this(), predictor, copy](const absl::Status& status,
                                                           absl::string_view response) mutable {
    // Off the thread that ends the call: it may be a poller, and a predictor that nobody else holds any more waits, in
    // its destructor, for this very call.
    auto answer = std::make_shared<std::string>(response);
    ShadowThread().Submit([self, predictor = std::move(predictor), copy, status, answer]() mutable {
      self->Compare(*copy, status, *answer);
      self->End(copy->bytes());
      predictor.reset();
    });
  };
  LocalCall::Start(handler, *std::move(request), std::move(options), std::move(done));
}

void Shadow::Compare(const Copy& copy, const absl::Status& status, absl::string_view response) {
  if (!status.ok()) {
    failed_.fetch_add(1, std::memory_order_relaxed);
    return Tell(copy, absl::StrCat("failed: ", status.ToString()));
  }
  const absl::StatusOr<AnswerDifference> difference =
      CompareAnswers(copy.method, copy.response, response, options_.tolerance);
  if (!difference.ok()) {
    failed_.fetch_add(1, std::memory_order_relaxed);
    return Tell(copy, absl::StrCat("failed: ", difference.status().ToString()));
  }
  if (difference->equal()) {
    equal_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  different_.fetch_add(1, std::memory_order_relaxed);
  Tell(copy,
       absl::StrCat(
           "differs: ", difference->what,
           difference->max_abs_difference > 0 ? absl::StrCat(", by at most ", difference->max_abs_difference) : ""));
}

void Shadow::Tell(const Copy& copy, absl::string_view text) {
  const int64_t now_ns = NowNs();
  int64_t until_ns = quiet_until_ns_.load(std::memory_order_relaxed);
  if (now_ns < until_ns || !quiet_until_ns_.compare_exchange_strong(until_ns, now_ns + kQuietNs)) return;
  LOG(WARNING) << "model " << options_.model << ": a copy of a request that version " << copy.version
               << " answered, sent to "
               << (options_.label.empty() ? absl::StrCat("version ", options_.version)
                                          : absl::StrCat("label ", options_.label))
               << ", " << text;
}

void Shadow::End(int64_t bytes) {
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
}

ShadowCounts Shadow::counts() const {
  return {equal_.load(std::memory_order_relaxed), different_.load(std::memory_order_relaxed),
          failed_.load(std::memory_order_relaxed), dropped_.load(std::memory_order_relaxed),
          in_flight_.load(std::memory_order_relaxed)};
}

}  // namespace tessera
