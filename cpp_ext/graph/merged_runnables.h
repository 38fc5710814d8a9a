// What runs several heads of a graph at once, for MultiInference.
#ifndef TESSERA_CPP_EXT_GRAPH_MERGED_RUNNABLES_H_
#define TESSERA_CPP_EXT_GRAPH_MERGED_RUNNABLES_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cpp_ext/base/read_mostly.h"
#include "cpp_ext/graph/merged_signatures.h"

namespace tessera {

class Runnable;

// Some sets are built with the graph, others when they are asked for the first time. Thread-safe.
class MergedRunnables {
 public:
  // Null when the signature cannot be run. Called by one thread at a time.
  using Build = std::function<std::shared_ptr<const Runnable>(const tensorflow::SignatureDef&)>;

  // Builds SetsToMergeAtLoad(). Every Runnable may hold constants of `graph_bytes`; as many are made as 256 MiB allow,
  // 16 at the most. `build_later`: the other sets may be built once the graph serves. The heads must outlive this.
  MergedRunnables(std::vector<const Signature*> heads, size_t graph_bytes, Build build, bool build_later);

  // Null when the set has to be run head by head: for good, or until it has been built on another thread, which then
  // keeps `graph` alive. What is returned lives as long as this. REQUIRES: two heads or more.
  const Runnable* Find(HeadSet set, const std::shared_ptr<const void>& graph) const;

 private:
  using Built = std::map<HeadSet, std::shared_ptr<const Runnable>>;

  bool Claim(HeadSet set) const;
  void BuildOne(HeadSet set) const;

  const std::vector<const Signature*> heads_;
  const size_t max_built_;
  const bool build_later_;
  mutable std::mutex mu_;
  mutable std::set<HeadSet> claimed_;  // guarded by mu_: built, being built, or impossible
  mutable std::mutex build_mu_;
  Build build_;  // guarded by build_mu_; null when nothing will be built any more
  mutable ReadMostly<Built> built_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_MERGED_RUNNABLES_H_
