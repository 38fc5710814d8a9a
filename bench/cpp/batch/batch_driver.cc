// Loads models and drives them as it is told, line by line, on stdin; answers each line with a line of JSON.
//
//   batch_driver --engine=tessera|session [--intra-op=N] [--inter-op=N] [--op-library=FILE]
//                MODEL_DIR=SAMPLES_FILE ...
//
//   run seconds=S [warmup=S] [deadline_us=N] [poison=P] [cancel=P] [events=N] [threads=N] [MODEL:closed:CLIENTS] ...
//       [MODEL:open:RATE] ...
//   policy MODEL [max_batch_size=N] [batch_timeout_us=N] [max_in_flight_batches=N] [max_enqueued_rows=N]
//
// MODEL is a position in the command line. `events=0` (the default) has a blocking thread for each client. A run
// without loads measures the idle process.
#include <dlfcn.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "bench/cpp/batch/batch_engine.h"
#include "bench/cpp/batch/batch_load.h"
#include "bench/cpp/batch/batch_report.h"

namespace tessera::bench {
namespace {

[[noreturn]] void Fail(absl::string_view text) {
  std::cerr << "batch_driver: " << text << std::endl;
  _exit(2);
}

double Number(absl::string_view name, absl::string_view text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || value < 0) Fail(absl::StrCat(name, ": is ", text, ", expected a number >= 0"));
  return value;
}

int64_t Nanoseconds(absl::string_view name, absl::string_view text, double unit) {
  return static_cast<int64_t>(Number(name, text) * unit);
}

using Models = std::vector<std::unique_ptr<Model>>;

Model* Find(const Models& models, absl::string_view position) {
  size_t index = 0;
  if (!absl::SimpleAtoi(position, &index) || index >= models.size()) Fail(absl::StrCat("model: is ", position));
  return models[index].get();
}

Plan ParsePlan(const Models& models, const std::vector<std::string>& words) {
  Plan plan;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::vector<std::string> load = absl::StrSplit(words[i], ':');
    const std::pair<std::string, std::string> item = absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    const auto& [name, value] = item;
    if (load.size() == 3 && load[1] == "closed") {
      plan.loads.push_back({Find(models, load[0]), static_cast<int>(Number("clients", load[2])), 0});
    } else if (load.size() == 3 && load[1] == "open") {
      plan.loads.push_back({Find(models, load[0]), 0, Number("rate", load[2])});
    } else if (name == "seconds") {
      plan.run_ns = Nanoseconds(name, value, 1e9);
    } else if (name == "warmup") {
      plan.warm_up_ns = Nanoseconds(name, value, 1e9);
    } else if (name == "deadline_us") {
      plan.deadline_ns = Nanoseconds(name, value, 1e3);
    } else if (name == "poison") {
      plan.poison = Number(name, value);
    } else if (name == "cancel") {
      plan.cancel = Number(name, value);
    } else if (name == "events") {
      plan.event_threads = static_cast<int>(Number(name, value));
    } else if (name == "threads") {
      plan.open_threads = static_cast<int>(Number(name, value));
    } else {
      Fail(absl::StrCat("run: does not know ", words[i]));
    }
  }
  for (const Load& load : plan.loads) {
    if (load.model->blocks() && plan.event_threads > 0) Fail("events: a session blocks, and needs a thread per client");
  }
  if (plan.cancel > 0 && plan.event_threads > 0) Fail("cancel: only with a thread per client");
  return plan;
}

void SetPolicy(const Models& models, const std::vector<std::string>& words) {
  BatchPolicy policy;
  if (words.size() < 2) Fail("policy: expected a model");
  for (size_t i = 2; i < words.size(); ++i) {
    const std::pair<std::string, std::string> item = absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    const auto value = static_cast<int64_t>(Number(item.first, item.second));
    if (item.first == "max_batch_size") {
      policy.max_batch_size = value;
    } else if (item.first == "batch_timeout_us") {
      policy.batch_timeout_ns = value * 1000;
    } else if (item.first == "max_in_flight_batches") {
      policy.max_in_flight_batches = value;
    } else if (item.first == "max_enqueued_rows") {
      policy.max_enqueued_rows = value;
    } else {
      Fail(absl::StrCat("policy: does not know ", words[i]));
    }
  }
  const absl::Status status = Find(models, words[1])->SetPolicy(policy);
  if (!status.ok()) Fail(status.message());
}

struct DeviceTotals {
  int64_t batches = 0, rows = 0, busy_ns = 0;
};

// Of the simulated accelerator, if its library is loaded.
DeviceTotals ReadDevice() {
  DeviceTotals totals;
  static const auto read =
      reinterpret_cast<void (*)(int64_t*, int64_t*, int64_t*)>(dlsym(RTLD_DEFAULT, "SimulatedAcceleratorTotals"));
  if (read != nullptr) read(&totals.batches, &totals.rows, &totals.busy_ns);
  return totals;
}

std::string RunAndReport(const Models& models, const Plan& plan) {
  std::vector<BatchTotals> before;
  for (const auto& model : models) before.push_back(model->totals());
  const DeviceTotals device = ReadDevice();
  const Outcome outcome = RunLoad(plan);
  const DeviceTotals device_after = ReadDevice();
  BatchTotals batches;
  for (size_t i = 0; i < models.size(); ++i) {
    const BatchTotals after = models[i]->totals();
    batches.tasks += after.tasks - before[i].tasks;
    batches.rows += after.rows - before[i].rows;
    batches.batches += after.batches - before[i].batches;
    batches.padding_rows += after.padding_rows - before[i].padding_rows;
    batches.inline_batches += after.inline_batches - before[i].inline_batches;
  }
  std::string text = "{\"loads\": [";
  for (size_t i = 0; i < plan.loads.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", ReportLoad(plan, plan.loads[i], outcome, outcome.records[i]));
  }
  const double run_s = static_cast<double>(plan.run_ns) * 1e-9;
  absl::StrAppend(&text, "], \"cpu_s\": ", static_cast<double>(outcome.cpu_ns) * 1e-9,
                  ", \"context_switches_per_s\": ", static_cast<double>(outcome.context_switches) / run_s,
                  ", \"tasks\": ", batches.tasks, ", \"rows\": ", batches.rows, ", \"batches\": ", batches.batches,
                  ", \"padding_rows\": ", batches.padding_rows, ", \"inline_batches\": ", batches.inline_batches,
                  ", \"device_rows\": ", device_after.rows - device.rows,
                  ", \"device_batches\": ", device_after.batches - device.batches, "}");
  return text;
}

std::string LoadAll(const std::vector<std::string>& arguments, Models* models) {
  EngineOptions options;
  std::string engine;
  std::string regions;
  for (const std::string& argument : arguments) {
    const std::pair<std::string, std::string> item = absl::StrSplit(argument, absl::MaxSplits('=', 1));
    const auto& [name, value] = item;
    if (name == "--engine") {
      engine = value;
    } else if (name == "--intra-op") {
      if (!absl::SimpleAtoi(value, &options.intra_op_threads)) Fail(argument);
    } else if (name == "--inter-op") {
      if (!absl::SimpleAtoi(value, &options.inter_op_threads)) Fail(argument);
    } else if (name == "--op-library") {
      if (dlopen(value.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) Fail(dlerror());
    } else if (absl::StartsWith(name, "--") || value.empty()) {
      Fail(absl::StrCat("does not know ", argument));
    } else {
      auto samples = ReadSamples(value);
      if (!samples.ok()) Fail(samples.status().message());
      auto model = engine == "tessera"
                       ? LoadTesseraModel(name, absl::StrCat("model_", models->size(), ":1"), *samples, options)
                       : LoadSessionModel(name, *samples, options);
      if (!model.ok()) Fail(absl::StrCat(name, ": ", model.status().message()));
      for (const auto& [region, refused] : (*model)->regions()) {
        absl::StrAppend(&regions, regions.empty() ? "" : ", ", JsonString(region), ": ", JsonString(refused));
      }
      models->push_back(*std::move(model));
    }
  }
  if (models->empty() || (engine != "tessera" && engine != "session")) Fail("expected --engine and models");
  return absl::StrCat("{\"regions\": {", regions, "}}");
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  Models models;
  std::cout << LoadAll(std::vector<std::string>(argv + 1, argv + argc), &models) << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    if (words[0] == "run") {
      std::cout << RunAndReport(models, ParsePlan(models, words)) << std::endl;
    } else if (words[0] == "policy") {
      SetPolicy(models, words);
      std::cout << "{}" << std::endl;
    } else {
      Fail(absl::StrCat("does not know ", words[0]));
    }
  }
  _exit(0);  // sessions and batch threads need not be taken down
}
