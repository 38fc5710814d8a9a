#include "cpp_ext/graph/run.h"

#include <time.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

namespace tessera {
namespace {

struct Waiter {
  absl::Notification ended;
  absl::Status status;
};

int64_t DeadlineNs(absl::Duration timeout) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec + absl::ToInt64Nanoseconds(timeout);
}

absl::Status SetInputs(const Signature& signature, const NamedTensors& inputs, Step* step) {
  std::vector<absl::string_view> aliases;
  std::vector<int> positions;
  for (const auto& [alias, tensor] : inputs) {
    aliases.push_back(alias);
    positions.push_back(signature.FindInput(alias));
    if (positions.back() >= 0) step->args()[static_cast<size_t>(positions.back())] = tensor;
  }
  return signature.CheckInputs(aliases, positions, absl::MakeSpan(step->args()));
}

}  // namespace

absl::StatusOr<NamedTensors> RunAndWait(std::shared_ptr<const ServedVersion> version, const std::string& signature_name,
                                        const NamedTensors& inputs, absl::Duration timeout) {
  const Runnable* runnable = version->graph().Find(signature_name);
  if (runnable == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("Serving signature key \"", signature_name, "\" not found."));
  }
  const Signature& signature = runnable->signature();
  Step step;
  Waiter waiter;
  step.Reset(signature.inputs().size(), signature.fetches().size());
  absl::Status status = SetInputs(signature, inputs, &step);
  if (!status.ok()) return status;
  const bool has_context = runnable->mode() == RunMode::kAsync;
  if (has_context) {
    if (!step.slot().valid())
      return absl::ResourceExhaustedError("too many requests with lookups or batches are in flight");
    StepContext& context = step.slot().context();
    context.fanout = version->fanout();
    context.route = version->route();
    context.deadline_ns = DeadlineNs(timeout);
    step.set_pin(version);
  }
  step.set_done(
      [](void* arg, absl::Status ended) {
        auto* self = static_cast<Waiter*>(arg);
        self->status = std::move(ended);
        self->ended.Notify();
      },
      &waiter);
  runnable->RunAsync(&step);
  const bool in_time = waiter.ended.WaitForNotificationWithTimeout(timeout);
  if (!in_time) {
    step.Cancel();
    waiter.ended.WaitForNotification();
  }
  std::string message;
  const int code = has_context ? step.slot().context().error.Take(&message) : 0;
  if (!in_time) return absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(timeout)));
  if (!waiter.status.ok()) {
    return code != 0 ? absl::Status(static_cast<absl::StatusCode>(code), message) : waiter.status;
  }
  NamedTensors outputs;
  for (const SignatureOutput& output : signature.outputs()) {
    outputs[output.alias] = output.fetch >= 0 ? step.results()[static_cast<size_t>(output.fetch)]
                                              : step.args()[static_cast<size_t>(output.input)];
  }
  return outputs;
}

}  // namespace tessera
