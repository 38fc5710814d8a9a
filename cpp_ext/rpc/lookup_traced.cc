// Tells the trace of a route that has one what a lookup does.
#include <utility>

#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup.h"
#include "cpp_ext/rpc/lookup_trace.h"

namespace {

const char* CauseName(tessera::Cause cause) {
  switch (cause) {
    case tessera::Cause::kFirst:
      return "first";
    case tessera::Cause::kRetry:
      return "retry";
    case tessera::Cause::kHedge:
      return "hedge";
  }
  return "unknown";
}

}  // namespace

void TesseraLookup::TraceAnswer(const SubRequest& sub, const tessera::Status& status) const {
  const tessera::Peer& peer = *route_->target(sub.target).peer;
  tessera::TracedSubRequest traced;
  traced.server_id = peer.server_id;
  traced.address = peer.address;
  traced.cause = CauseName(sub.cause);
  for (const uint32_t position : sub.positions) ++traced.table_rows[route_->table(rows_[position].table).name];
  traced.ids_bytes = sub.size.ids_bytes;
  traced.rows_bytes = sub.size.rows_bytes;
  traced.started_ns = sub.started_ns;
  traced.ended_ns = fanout_.now_ns_();
  traced.status = status;
  route_->trace()->Add(traced_, std::move(traced));
}

void TesseraLookup::TraceEnd() const {
  route_->trace()->End(traced_, rows_.size(), repeats_.size(), fanout_.now_ns_(), outcome_);
}
