#include "bench/cpp/batch/batch_load.h"

#include <sys/resource.h>
#include <time.h>

#include <iostream>
#include <mutex>
#include <thread>

namespace tessera::bench {
namespace {

int64_t ProcessCpuNs() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return used.tv_sec * int64_t{1000000000} + used.tv_nsec;
}

int64_t ContextSwitches() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nvcsw + usage.ru_nivcsw;
}

void SleepUntil(int64_t ns) {
  const timespec at = {ns / 1'000'000'000, ns % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
  }
}

}  // namespace

const Sample& Dice::Pick(const Samples& samples, double poison, bool* poisoned) {
  *poisoned = !samples.poisoned.empty() && Happens(poison);
  const std::vector<Sample>& from = *poisoned ? samples.poisoned : samples.good;
  return from[random_() % from.size()];
}

void Judge(const Call& call, const Sample& sample, Record* record) {
  record->code = call.status().code();
  if (!call.status().ok()) {
    static std::once_flag said;  // the driver's log has one example
    std::call_once(said, [&] { std::cerr << "first error: " << call.status() << std::endl; });
    return;
  }
  record->wrong = sample.expected.empty();
  for (size_t i = 0; i < sample.expected.size(); ++i) {
    if (!Agrees(call.output(i), sample.expected[i])) record->wrong = true;
  }
}

Outcome RunLoad(const Plan& plan) {
  Outcome outcome;
  outcome.records.resize(plan.loads.size());
  outcome.begin_ns = NowNs() + plan.warm_up_ns;
  outcome.end_ns = outcome.begin_ns + plan.run_ns;
  std::thread observer([&outcome] {
    SleepUntil(outcome.begin_ns);
    const int64_t cpu_ns = ProcessCpuNs(), switches = ContextSwitches();
    SleepUntil(outcome.end_ns);
    outcome.cpu_ns = ProcessCpuNs() - cpu_ns;
    outcome.context_switches = ContextSwitches() - switches;
  });
  if (plan.loads.empty()) {
    SleepUntil(outcome.end_ns);
  } else if (plan.event_threads == 0) {
    DriveByThreads(plan, outcome.begin_ns, outcome.end_ns, &outcome);
  } else {
    DriveByEvents(plan, outcome.begin_ns, outcome.end_ns, &outcome);
  }
  observer.join();
  return outcome;
}

}  // namespace tessera::bench
