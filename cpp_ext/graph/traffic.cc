#include "cpp_ext/graph/traffic.h"

#include <cmath>
#include <limits>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/base/hash.h"
#include "cpp_ext/graph/random.h"

namespace tessera {
namespace {

constexpr double kSumTolerance = 1e-3;  // percentages such as 33.333 are meant to be exact enough

// A number above 0 that is the smaller the likelier: exponentially distributed with the rate `percent`.
double Draw(absl::string_view sticky, uint64_t seed, double percent) {
  return -std::log(UnitInterval(XxHash64(sticky.data(), sticky.size(), seed))) / percent;
}

}  // namespace

absl::StatusOr<std::shared_ptr<TrafficSplit>> TrafficSplit::Make(std::vector<Share> shares, std::string sticky_header) {
  if (shares.empty() || shares.size() > kMaxShares) {
    return absl::InvalidArgumentError(
        absl::StrCat("traffic split: got ", shares.size(), " shares, expected 1 to ", kMaxShares));
  }
  std::shared_ptr<TrafficSplit> split(new TrafficSplit);
  std::set<std::pair<std::string, int64_t>> seen;
  double sum = 0;
  for (const Share& share : shares) {
    const std::string name = share.label.empty() ? absl::StrCat(share.version) : share.label;
    if (share.label.empty() && share.version < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("traffic split: got version ", share.version, ", expected 0 or more"));
    }
    if (!seen.emplace(share.label, share.version).second) {
      return absl::InvalidArgumentError(absl::StrCat("traffic split: ", name, " twice"));
    }
    if (!(share.percent >= 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("traffic split: ", name, ": got ", share.percent, " percent, expected 0 or more"));
    }
    sum += share.percent;
    split->seeds_.push_back(share.label.empty() ? XxHash64(&share.version, sizeof(share.version))
                                                : XxHash64(share.label.data(), share.label.size(), 1));
  }
  if (std::abs(sum - 100) > kSumTolerance) {
    return absl::InvalidArgumentError(absl::StrCat("traffic split: the shares sum up to ", sum, ", expected 100"));
  }
  split->cells_ = std::make_unique<Cell[]>(shares.size());
  split->shares_ = std::move(shares);
  split->sticky_header_ = std::move(sticky_header);
  return split;
}

absl::string_view TrafficSplit::StickyValue(MetadataReader metadata, absl::string_view client_id) const {
  if (sticky_header_.empty()) return client_id;
  const absl::string_view value = metadata(sticky_header_);
  return value.empty() ? client_id : value;
}

int TrafficSplit::Choose(absl::Span<const char> available, absl::string_view sticky) const {
  uint64_t random = 0;
  if (sticky.empty()) {
    random = RandomBits();
    sticky = absl::string_view(reinterpret_cast<const char*>(&random), sizeof(random));
  }
  int wanted = -1, chosen = -1;
  double best_wanted = std::numeric_limits<double>::infinity(), best_chosen = best_wanted;
  for (size_t i = 0; i < shares_.size(); ++i) {
    if (shares_[i].percent == 0) continue;
    const double draw = Draw(sticky, seeds_[i], shares_[i].percent);
    if (draw < best_wanted) {
      best_wanted = draw;
      wanted = static_cast<int>(i);
    }
    if (available[i] && draw < best_chosen) {
      best_chosen = draw;
      chosen = static_cast<int>(i);
    }
  }
  if (wanted != chosen) cells_[wanted].rerouted.fetch_add(1, std::memory_order_relaxed);
  if (chosen >= 0) cells_[chosen].chosen.fetch_add(1, std::memory_order_relaxed);
  return chosen;
}

TrafficSplit::Counts TrafficSplit::counts(size_t share) const {
  return {cells_[share].chosen.load(std::memory_order_relaxed), cells_[share].rerouted.load(std::memory_order_relaxed)};
}

}  // namespace tessera
