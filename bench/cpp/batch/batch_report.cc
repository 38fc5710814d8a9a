#include "bench/cpp/batch/batch_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace tessera::bench {
namespace {

// Nearest rank. REQUIRES: `sorted` is.
double Percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

}  // namespace

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

std::string ReportLoad(const Plan& plan, const Load& load, const Outcome& outcome, const std::vector<Record>& records) {
  uint64_t offered = 0, started = 0, good = 0, wrong = 0, innocent_failures = 0, poisoned = 0, cancelled = 0;
  double late_us = 0;
  std::vector<double> latencies_us;
  std::map<std::string, uint64_t> errors;
  for (const Record& record : records) {
    const bool is_good = record.done_ns != 0 && record.code == absl::StatusCode::kOk && !record.wrong;
    if (is_good && record.done_ns >= outcome.begin_ns && record.done_ns < outcome.end_ns) ++good;
    // A closed loop is measured by its answers, an open one by its arrivals.
    const int64_t moment_ns = load.rate > 0 ? record.arrival_ns : record.done_ns;
    if (moment_ns < outcome.begin_ns || moment_ns >= outcome.end_ns) continue;
    ++offered;
    if (record.done_ns == 0) continue;
    ++started;
    poisoned += record.poisoned;
    cancelled += record.cancelled;
    wrong += record.wrong;
    const double latency_us = static_cast<double>(record.done_ns - record.arrival_ns) * 1e-3;
    if (is_good) latencies_us.push_back(latency_us);
    if (record.code != absl::StatusCode::kOk) {
      ++errors[absl::StatusCodeToString(record.code)];
      if (!record.poisoned && !record.cancelled) ++innocent_failures;
    }
    if (plan.deadline_ns != 0) late_us = std::max(late_us, latency_us - static_cast<double>(plan.deadline_ns) * 1e-3);
  }
  std::sort(latencies_us.begin(), latencies_us.end());
  const double run_s = static_cast<double>(plan.run_ns) * 1e-9;
  const double sum_us = std::accumulate(latencies_us.begin(), latencies_us.end(), 0.0);
  std::string text =
      absl::StrCat("{\"offered\": ", offered, ", \"started\": ", started, ", \"good\": ", good,
                   ", \"good_per_s\": ", static_cast<double>(good) / run_s,
                   ", \"p50_us\": ", Percentile(latencies_us, 0.5), ", \"p99_us\": ", Percentile(latencies_us, 0.99),
                   ", \"mean_us\": ", latencies_us.empty() ? 0 : sum_us / static_cast<double>(latencies_us.size()),
                   ", \"max_us\": ", latencies_us.empty() ? 0 : latencies_us.back(), ", \"late_us\": ", late_us,
                   ", \"wrong\": ", wrong, ", \"poisoned\": ", poisoned, ", \"cancelled\": ", cancelled,
                   ", \"innocent_failures\": ", innocent_failures, ", \"errors\": {");
  const char* separator = "";
  for (const auto& [code, count] : errors) {
    absl::StrAppend(&text, separator, "\"", code, "\": ", count);
    separator = ", ";
  }
  return text + "}}";
}

}  // namespace tessera::bench
