#include "cpp_ext/graph/snapshot.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {

absl::StatusOr<std::shared_ptr<ServedVersion>> ServedVersion::Make(int64_t version, std::shared_ptr<LoadedGraph> graph,
                                                                   const TesseraFanoutApi* fanout, TesseraRoute* route,
                                                                   std::vector<std::string> labels,
                                                                   std::shared_ptr<AnswerHook> hook) {
  if (version < 0) return absl::InvalidArgumentError(absl::StrCat("version: got ", version, ", expected 0 or more"));
  const int64_t needed = graph->lookup_tables();
  if (needed > 0 && (fanout == nullptr || route == nullptr)) {
    return absl::FailedPreconditionError(absl::StrCat("version ", version, ": the graph looks up ", needed,
                                                      " tables; it needs a route, and configure(fanout=...) before"));
  }
  if (needed > 0 && fanout->table_count(route) < needed) {
    return absl::FailedPreconditionError(absl::StrCat("version ", version, ": the graph looks up ", needed,
                                                      " tables, the route has ", fanout->table_count(route)));
  }
  std::shared_ptr<ServedVersion> self(new ServedVersion);
  self->version_ = version;
  self->graph_ = std::move(graph);
  self->labels_ = std::move(labels);
  self->hook_ = std::move(hook);
  self->fanout_ = fanout;
  if (fanout != nullptr && route != nullptr) {
    fanout->retain_route(route);
    self->route_ = route;
  }
  return self;
}

ServedVersion::~ServedVersion() {
  if (route_ != nullptr) fanout_->release_route(route_);
}

namespace {

bool HasLabel(const ServedVersion& version, absl::string_view label) {
  return std::find(version.labels().begin(), version.labels().end(), label) != version.labels().end();
}

absl::Status NoSuchVersion(absl::string_view model, int64_t version) {
  return absl::NotFoundError(absl::StrCat("Servable not found for request: Specific(", model, ", ", version, ")"));
}

// Finds the version of each share of the model's split.
void ResolveSplit(ServedModel* model) {
  model->split_versions.clear();
  model->split_available.clear();
  for (const TrafficSplit::Share& share : model->split->shares()) {
    const auto found = std::find_if(model->versions.begin(), model->versions.end(), [&](const Pin& version) {
      return share.label.empty() ? version->version() == share.version : HasLabel(*version, share.label);
    });
    model->split_versions.push_back(found == model->versions.end() ? nullptr : *found);
    model->split_available.push_back(found != model->versions.end());
  }
}

}  // namespace

void ReleasePin(Pin pin) {
  // Nobody can copy the last reference, so 1 is certain; two threads that both
  // see 2 free it here, which is only slower.
  if (pin.use_count() != 1) return;
  WorkerPool::Background().Submit([pin = std::move(pin)]() mutable { pin.reset(); });
}

absl::StatusOr<std::shared_ptr<const Snapshot>> Snapshot::Make(std::vector<ServedModel> models, KnownLabels labels) {
  for (ServedModel& model : models) {
    if (model.versions.empty()) return absl::InvalidArgumentError(absl::StrCat("model ", model.name, ": no versions"));
    std::sort(model.versions.begin(), model.versions.end(),
              [](const Pin& a, const Pin& b) { return a->version() > b->version(); });
    if (model.split != nullptr) ResolveSplit(&model);
    std::set<std::string> seen;
    for (size_t i = 0; i < model.versions.size(); ++i) {
      const ServedVersion& version = *model.versions[i];
      if (i > 0 && version.version() == model.versions[i - 1]->version()) {
        return absl::InvalidArgumentError(
            absl::StrCat("model ", model.name, ": version ", version.version(), " twice"));
      }
      for (const std::string& label : version.labels()) {
        if (seen.insert(label).second) continue;
        return absl::InvalidArgumentError(absl::StrCat("model ", model.name, ": label ", label, " on two versions"));
      }
    }
  }
  std::sort(models.begin(), models.end(), [](const ServedModel& a, const ServedModel& b) { return a.name < b.name; });
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->models_ = std::move(models);
  snapshot->labels_ = std::move(labels);
  return snapshot;
}

absl::Status Snapshot::Resolve(const RequestView& request, MetadataReader metadata, Pin* pin,
                               RequestStats** stats) const {
  using Choice = RequestView::Choice;
  const auto model =
      std::lower_bound(models_.begin(), models_.end(), request.model,
                       [](const ServedModel& served, absl::string_view name) { return served.name < name; });
  const bool known = model != models_.end() && model->name == request.model;
  if (known && model->stats != nullptr) *stats = model->stats;
  if (request.choice == Choice::kLatest) {
    if (known && model->split == nullptr) {
      *pin = model->versions.front();
      return absl::OkStatus();
    }
    if (known) {
      const absl::string_view sticky = model->split->StickyValue(metadata, request.client_id);
      const int share = model->split->Choose(model->split_available, sticky);
      if (share >= 0) {
        *pin = model->split_versions[static_cast<size_t>(share)];
        return absl::OkStatus();
      }
    }
    return absl::NotFoundError(absl::StrCat("Servable not found for request: Latest(", request.model, ")"));
  }
  if (known) {
    for (const Pin& version : model->versions) {
      if (request.choice == Choice::kVersion ? version->version() == request.version
                                             : HasLabel(*version, request.label)) {
        *pin = version;
        return absl::OkStatus();
      }
    }
  }
  if (request.choice == Choice::kLabel) return NoSuchLabel(request);
  return NoSuchVersion(request.model, request.version);
}

absl::Status Snapshot::NoSuchLabel(const RequestView& request) const {
  if (const auto model = labels_.versions.find(request.model); model != labels_.versions.end()) {
    const auto version = model->second.find(std::string(request.label));
    if (version != model->second.end()) return NoSuchVersion(request.model, version->second);
  }
  if (!labels_.complete) return absl::UnavailableError(absl::StrCat("Model labels does not init yet.", request.label));
  return absl::InvalidArgumentError(absl::StrCat("Unrecognized servable version label: ", request.label));
}

CurrentSnapshot::CurrentSnapshot() { Replace(std::make_shared<const Snapshot>()); }

CurrentSnapshot::Cell& CurrentSnapshot::CellOfThisThread() const {
  static std::atomic<size_t> next{0};
  thread_local const size_t cell = next.fetch_add(1, std::memory_order_relaxed) % kCells;
  return cells_[cell];
}

void CurrentSnapshot::Replace(std::shared_ptr<const Snapshot> snapshot) {
  std::lock_guard<std::mutex> replacing(replace_mu_);
  for (Cell& cell : cells_) {
    std::shared_ptr<const Snapshot> old = snapshot;
    {
      std::lock_guard<std::mutex> lock(cell.mu);
      cell.snapshot.swap(old);
    }
  }
}

absl::Status CurrentSnapshot::Resolve(const RequestView& request, MetadataReader metadata, Pin* pin,
                                      RequestStats** stats) const {
  Cell& cell = CellOfThisThread();
  std::lock_guard<std::mutex> lock(cell.mu);
  return cell.snapshot->Resolve(request, metadata, pin, stats);
}

std::shared_ptr<const Snapshot> CurrentSnapshot::Get() const {
  Cell& cell = CellOfThisThread();
  std::lock_guard<std::mutex> lock(cell.mu);
  return cell.snapshot;
}

}  // namespace tessera
