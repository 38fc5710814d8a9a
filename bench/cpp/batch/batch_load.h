// Sends requests to models and notes what came of them.
#ifndef TESSERA_BENCH_CPP_BATCH_BATCH_LOAD_H_
#define TESSERA_BENCH_CPP_BATCH_BATCH_LOAD_H_

#include <cstdint>
#include <random>
#include <vector>

#include "bench/cpp/batch/batch_engine.h"

namespace tessera::bench {

// Requests to one model: `clients` that each wait for an answer before the next request (closed loop), or, with
// `rate` > 0, arrivals at random moments, so many a second (open loop, Poisson).
struct Load {
  Model* model = nullptr;
  int clients = 0;
  double rate = 0;
};

struct Plan {
  std::vector<Load> loads;
  int64_t warm_up_ns = 0, run_ns = 0;
  int64_t deadline_ns = 0;            // after the arrival; 0: none
  double poison = 0;                  // share of requests that are to fail
  double cancel = 0;                  // share of requests whose caller loses interest, after at most 2 ms
  int open_threads = 256;             // of blocking driving, per open loop
  int event_threads = 0;              // 0: a blocking thread for each client
  int64_t max_outstanding = 1 << 14;  // of event driving, per open loop and thread; more are refused
};

// One request. Times are NowNs().
struct Record {
  int64_t arrival_ns = 0;
  int64_t done_ns = 0;  // 0: it was never started
  absl::StatusCode code = absl::StatusCode::kOk;
  bool poisoned = false;
  bool cancelled = false;
  bool wrong = false;
};

struct Outcome {
  int64_t begin_ns = 0, end_ns = 0;          // what is measured, after the warm-up
  std::vector<std::vector<Record>> records;  // per load, unordered
  int64_t cpu_ns = 0, context_switches = 0;  // of the process, over the measured time
};

// Blocks until every request that was started has been answered.
Outcome RunLoad(const Plan& plan);

// Decides what each request is. One per thread.
class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  const Sample& Pick(const Samples& samples, double poison, bool* poisoned);
  bool Happens(double probability) { return probability > 0 && uniform_(random_) < probability; }
  // Nanoseconds to the next arrival.
  int64_t Gap(double rate) { return static_cast<int64_t>(std::exponential_distribution<>(rate)(random_) * 1e9); }
  int64_t CancelDelayNs() { return static_cast<int64_t>(uniform_(random_) * 2e6); }

 private:
  std::mt19937_64 random_;
  std::uniform_real_distribution<> uniform_{0, 1};
};

// Looks at the answer.
void Judge(const Call& call, const Sample& sample, Record* record);

// The two ways to drive; each returns when its time is over and all is answered.
void DriveByThreads(const Plan& plan, int64_t begin_ns, int64_t end_ns, Outcome* outcome);
void DriveByEvents(const Plan& plan, int64_t begin_ns, int64_t end_ns, Outcome* outcome);

}  // namespace tessera::bench

#endif  // TESSERA_BENCH_CPP_BATCH_BATCH_LOAD_H_
