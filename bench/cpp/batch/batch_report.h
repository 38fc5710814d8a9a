// What a run has shown, as JSON.
#ifndef TESSERA_BENCH_CPP_BATCH_BATCH_REPORT_H_
#define TESSERA_BENCH_CPP_BATCH_BATCH_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "bench/cpp/batch/batch_load.h"

namespace tessera::bench {

std::string JsonString(absl::string_view text);

// An object: `offered` arrivals, `started`, `good` answers in the measured time, `good_per_s`, latencies of the good
// answers to what arrived in that time (p50_us, p99_us, mean_us, max_us), how late the latest answer of any kind came
// after its deadline (late_us), `wrong` answers, `errors` by code, and failures of requests that were neither poisoned
// nor cancelled, of any code (innocent_failures).
std::string ReportLoad(const Plan& plan, const Load& load, const Outcome& outcome, const std::vector<Record>& records);

}  // namespace tessera::bench

#endif  // TESSERA_BENCH_CPP_BATCH_BATCH_REPORT_H_
