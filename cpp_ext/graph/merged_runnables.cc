#include "cpp_ext/graph/merged_runnables.h"

#include <algorithm>
#include <utility>

#include "cpp_ext/graph/graph.h"
#include "cpp_ext/graph/worker_pool.h"

namespace tessera {
namespace {

constexpr size_t kMaxBuilt = 16;
constexpr size_t kMaxBuiltBytes = size_t{256} << 20;

}  // namespace

MergedRunnables::MergedRunnables(std::vector<const Signature*> heads, size_t graph_bytes, Build build, bool build_later)
    : heads_(std::move(heads)),
      max_built_(std::min(kMaxBuilt, kMaxBuiltBytes / std::max<size_t>(graph_bytes, 1))),
      build_later_(build_later && heads_.size() > kMaxHeadsMergedAtLoad),
      build_(std::move(build)),
      built_(std::make_unique<const Built>()) {
  for (const HeadSet set : SetsToMergeAtLoad(heads_.size())) {
    if (Claim(set)) BuildOne(set);
  }
  if (!build_later_) build_ = nullptr;  // frees what it was made of
}

bool MergedRunnables::Claim(HeadSet set) const {
  const std::lock_guard<std::mutex> lock(mu_);
  return claimed_.size() < max_built_ && claimed_.insert(set).second;
}

void MergedRunnables::BuildOne(HeadSet set) const {
  std::shared_ptr<const Runnable> runnable;
  {
    const std::lock_guard<std::mutex> lock(build_mu_);
    runnable = build_(MergeHeads(heads_, set));
  }
  if (runnable == nullptr) return;
  built_.Replace([&](const Built& old) {
    auto built = std::make_unique<Built>(old);
    built->emplace(set, std::move(runnable));
    return built;
  });
}

const Runnable* MergedRunnables::Find(HeadSet set, const std::shared_ptr<const void>& graph) const {
  {
    const auto built = built_.Get();
    const auto found = built->find(set);
    if (found != built->end()) return found->second.get();
  }
  if (build_later_ && Claim(set)) {
    // Not the background pool: what that does must not wait for this.
    const bool accepted = WorkerPool::Sessions().Submit([this, set, graph] { BuildOne(set); });
    const std::lock_guard<std::mutex> lock(mu_);
    if (!accepted) claimed_.erase(set);
  }
  return nullptr;
}

}  // namespace tessera
