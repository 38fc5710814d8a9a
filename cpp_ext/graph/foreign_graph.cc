// A graph whose signatures a foreign model runs.
#include <utility>

#include "cpp_ext/graph/graph.h"

namespace tessera {

namespace tf = tensorflow;

absl::StatusOr<std::shared_ptr<LoadedGraph>> LoadedGraph::Foreign(const tf::MetaGraphDef& signatures,
                                                                  std::shared_ptr<const ForeignModel> model,
                                                                  const ForeignOptions& options) {
  std::shared_ptr<LoadedGraph> self = MakeShared();
  self->signature_defs_ = SerializeSignatures(signatures);
  self->batch_groups_ =
      std::make_unique<BatchGroups>(options.lane == nullptr ? &CpuLane() : options.lane, options.name);
  self->foreign_model_ = std::move(model);
  self->foreign_pool_ = std::make_unique<WorkerPool>(options.workers, options.max_waiting);
  for (const auto& [name, def] : signatures.signature_def()) {
    absl::StatusOr<Signature> signature = Signature::Make(name, def);
    if (!signature.ok()) return signature.status();
    Runnable& runnable = self->runnables_[name];
    runnable.signature_ = *std::move(signature);
    runnable.mode_ = RunMode::kAsync;
    runnable.runner_ = std::make_shared<ForeignRunner>(options.name, self->foreign_model_.get(),
                                                       self->foreign_pool_.get(), runnable.signature_, def);
    if (options.request_batching) self->BatchRequests(def, &runnable);
  }
  self->LogRefused();
  return self;
}

}  // namespace tessera
