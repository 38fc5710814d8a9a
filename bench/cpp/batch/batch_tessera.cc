#include <time.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cpp/batch/batch_engine.h"
#include "cpp_ext/graph/graph.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/step.h"

namespace tessera::bench {
namespace {

namespace tf = tensorflow;

constexpr char kSignature[] = "serving_default";

class TesseraModel : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, const std::string& name, Samples samples,
                                                     const EngineOptions& options) {
    LoadOptions load;
    load.tags = {"serve"};
    load.intra_op_threads = options.intra_op_threads;
    load.name = name;
    auto graph = LoadedGraph::Load(path, load);
    if (!graph.ok()) return graph.status();
    auto version = ServedVersion::Make(1, *graph, nullptr, nullptr, {});
    if (!version.ok()) return version.status();
    auto self = std::make_unique<TesseraModel>();
    self->graph_ = *graph;
    self->version_ = *version;
    self->runnable_ = (*graph)->Find(kSignature);
    if (self->runnable_ == nullptr) return absl::NotFoundError(absl::StrCat(path, ": has no ", kSignature));
    if (self->runnable_->executor() == nullptr) return self->runnable_->reason();
    const Signature& signature = self->runnable_->signature();
    for (const std::string& alias : samples.inputs) self->positions_.push_back(signature.FindInput(alias));
    for (const std::string& alias : samples.outputs) {
      int fetch = -1;
      for (const SignatureOutput& output : signature.outputs()) {
        if (output.alias == alias) fetch = output.fetch;
      }
      if (fetch < 0) return absl::NotFoundError(absl::StrCat(path, ": has no computed output ", alias));
      self->fetches_.push_back(static_cast<size_t>(fetch));
    }
    for (const int position : self->positions_) {
      if (position < 0) return absl::NotFoundError(absl::StrCat(path, ": an input of the samples is unknown"));
    }
    self->samples = std::move(samples);
    return self;
  }

  std::unique_ptr<Call> NewCall() override;
  bool blocks() const override { return false; }
  absl::Status SetPolicy(const BatchPolicy& policy) override {
    std::map<std::string, BatchPolicy> policies;
    for (const auto& item : graph_->batch_groups().entries()) policies[item.first] = policy;
    return graph_->batch_groups().SetPolicies(policies);
  }
  BatchTotals totals() const override {
    BatchTotals totals;
    for (const auto& item : graph_->batch_groups().entries()) {
      if (!item.second->refused().ok()) continue;
      const BatchGroupStats stats = item.second->lane().stats(item.second->group());
      totals.tasks += stats.tasks;
      totals.rows += stats.rows;
      totals.batches += stats.batches;
      totals.padding_rows += stats.padding_rows;
      totals.inline_batches += stats.inline_batches;
    }
    return totals;
  }
  std::map<std::string, std::string> regions() const override {
    std::map<std::string, std::string> regions;
    for (const auto& item : graph_->batch_groups().entries()) {
      regions[item.first] = std::string(item.second->refused().message());
    }
    return regions;
  }

 private:
  friend class TesseraCall;
  std::shared_ptr<LoadedGraph> graph_;
  std::shared_ptr<const ServedVersion> version_;
  const Runnable* runnable_ = nullptr;
  std::vector<int> positions_;   // of the samples' inputs in the signature
  std::vector<size_t> fetches_;  // of the samples' outputs among the step's results
};

class TesseraCall : public Call {
 public:
  explicit TesseraCall(const TesseraModel& model) : model_(model) {}

  void Start(const Sample& sample, int64_t deadline_ns, int64_t, Done done, void* arg) override {
    done_ = done;
    arg_ = arg;
    const Signature& signature = model_.runnable_->signature();
    step_.Reset(signature.inputs().size(), signature.fetches().size());
    for (size_t i = 0; i < sample.inputs.size(); ++i) {
      step_.args()[static_cast<size_t>(model_.positions_[i])] = sample.inputs[i];
    }
    if (model_.runnable_->mode() == RunMode::kAsync) {
      StepContext& context = step_.slot().context();
      context.deadline_ns = deadline_ns == 0 ? TESSERA_NO_DEADLINE : deadline_ns;
      step_.set_pin(model_.version_);
    }
    step_.set_done(&TesseraCall::OnDone, this);
    model_.runnable_->RunAsync(&step_);
  }
  void Cancel() override { step_.Cancel(); }
  const absl::Status& status() const override { return status_; }
  const tf::Tensor& output(size_t index) const override {
    return const_cast<Step&>(step_).results()[model_.fetches_[index]];
  }

 private:
  static void OnDone(void* arg, absl::Status status) {
    auto* self = static_cast<TesseraCall*>(arg);
    if (self->model_.runnable_->mode() == RunMode::kAsync) {
      std::string message;
      const int code = self->step_.slot().context().error.Take(&message);
      if (code != 0 && !status.ok()) status = absl::Status(static_cast<absl::StatusCode>(code), message);
    }
    self->status_ = std::move(status);
    self->done_(self->arg_);
  }

  const TesseraModel& model_;
  Step step_;
  absl::Status status_;
  Done done_ = nullptr;
  void* arg_ = nullptr;
};

std::unique_ptr<Call> TesseraModel::NewCall() { return std::make_unique<TesseraCall>(*this); }

}  // namespace

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

absl::StatusOr<std::unique_ptr<Model>> LoadTesseraModel(const std::string& path, const std::string& name,
                                                        Samples samples, const EngineOptions& options) {
  return TesseraModel::Load(path, name, std::move(samples), options);
}

}  // namespace tessera::bench
