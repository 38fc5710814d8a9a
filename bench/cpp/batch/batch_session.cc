#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cpp/batch/batch_engine.h"
#include "tensorflow/cc/saved_model/loader.h"

namespace tessera::bench {
namespace {

namespace tf = tensorflow;

class SessionModel : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, Samples samples,
                                                     const EngineOptions& options) {
    auto self = std::make_unique<SessionModel>();
    tf::SessionOptions session;
    session.config.set_intra_op_parallelism_threads(options.intra_op_threads);
    session.config.set_inter_op_parallelism_threads(options.inter_op_threads);
    absl::Status status = tf::LoadSavedModel(session, tf::RunOptions(), path, {"serve"}, &self->bundle_);
    if (!status.ok()) return status;
    const auto& signatures = self->bundle_.GetSignatures();
    const auto found = signatures.find("serving_default");
    if (found == signatures.end()) return absl::NotFoundError(absl::StrCat(path, ": has no serving_default"));
    tf::CallableOptions callable;
    for (const std::string& alias : samples.inputs) {
      const auto input = found->second.inputs().find(alias);
      if (input == found->second.inputs().end()) return absl::NotFoundError(absl::StrCat(path, ": no input ", alias));
      self->feeds_.push_back(input->second.name());
      callable.add_feed(input->second.name());
    }
    for (const std::string& alias : samples.outputs) {
      const auto output = found->second.outputs().find(alias);
      if (output == found->second.outputs().end()) {
        return absl::NotFoundError(absl::StrCat(path, ": no output ", alias));
      }
      self->fetches_.push_back(output->second.name());
      callable.add_fetch(output->second.name());
    }
    status = self->bundle_.GetSession()->MakeCallable(callable, &self->callable_);
    if (!status.ok()) return status;
    self->samples = std::move(samples);
    return self;
  }

  std::unique_ptr<Call> NewCall() override;
  bool blocks() const override { return true; }
  absl::Status SetPolicy(const BatchPolicy&) override {
    return absl::UnimplementedError("policy: the session's batches are set in the graph");
  }
  BatchTotals totals() const override { return {}; }
  std::map<std::string, std::string> regions() const override { return {}; }

 private:
  friend class SessionCall;
  tf::SavedModelBundleLite bundle_;
  tf::Session::CallableHandle callable_ = 0;
  std::vector<std::string> feeds_, fetches_;
};

class SessionCall : public Call {
 public:
  explicit SessionCall(const SessionModel& model) : model_(model) {}

  void Start(const Sample& sample, int64_t deadline_ns, int64_t cancel_ns, Done done, void* arg) override {
    outputs_.clear();
    tf::Session* session = model_.bundle_.GetSession();
    // A session can be told to stop only by a timeout of its own, in milliseconds.
    const int64_t end_ns = cancel_ns == 0 ? deadline_ns : cancel_ns;
    if (end_ns == 0) {
      status_ = session->RunCallable(model_.callable_, sample.inputs, &outputs_, nullptr);
    } else {
      const int64_t left_ms = (end_ns - NowNs()) / 1'000'000;
      tf::RunOptions options;
      options.set_timeout_in_ms(std::max<int64_t>(left_ms, 1));
      std::vector<std::pair<std::string, tf::Tensor>> feeds;
      for (size_t i = 0; i < sample.inputs.size(); ++i) feeds.emplace_back(model_.feeds_[i], sample.inputs[i]);
      status_ = session->Run(options, feeds, model_.fetches_, {}, &outputs_, nullptr);
    }
    done(arg);
  }
  void Cancel() override {}
  const absl::Status& status() const override { return status_; }
  const tf::Tensor& output(size_t index) const override { return outputs_[index]; }

 private:
  const SessionModel& model_;
  std::vector<tf::Tensor> outputs_;
  absl::Status status_;
};

std::unique_ptr<Call> SessionModel::NewCall() { return std::make_unique<SessionCall>(*this); }

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadSessionModel(const std::string& path, Samples samples,
                                                        const EngineOptions& options) {
  return SessionModel::Load(path, std::move(samples), options);
}

}  // namespace tessera::bench
