// What failures of sub-requests mean for the servers and for the lookup.
#include <algorithm>
#include <string_view>
#include <utility>

#include "cpp_ext/rpc/code_name.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup.h"
#include "cpp_ext/table/lookup_message.h"

using tessera::Code;
using tessera::RefusalKind;
using tessera::Status;

namespace {

// A server's text is quoted up to this, so that the texts of several fit into one status message.
constexpr size_t kQuotedBytes = 200;

// Cuts UTF-8 between characters.
std::string Quote(std::string_view text) {
  if (text.size() <= kQuotedBytes) return std::string(text);
  size_t size = kQuotedBytes;
  while (size > 0 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
  return std::string(text.substr(0, size)) + "...";
}

std::string Describe(const tessera::Peer& peer) {
  return peer.address.empty() ? peer.server_id : peer.server_id + " (" + peer.address + ")";
}

Status FromRefusal(const tessera::Refusal& refusal, bool* final) {
  const std::string text = std::string(tessera::RefusalKindName(refusal.kind)) + ": " + Quote(refusal.message);
  switch (refusal.kind) {
    case RefusalKind::kBadRequest:
      *final = true;  // every server would say so: the fault is on this side
      return Status(Code::kInternal, text);
    case RefusalKind::kOverloaded:
      return Status(Code::kResourceExhausted, text);
    case RefusalKind::kNotOwner:
    case RefusalKind::kDraining:
    case RefusalKind::kUnspecified:
      break;
  }
  return Status(Code::kUnavailable, text);
}

}  // namespace

Status TesseraLookup::Judge(const SubRequest& sub, Status status, const uint8_t* response, size_t response_size,
                            int64_t now_ns, const uint8_t** rows, bool* final) {
  const TesseraRoute::Target& target = route_->target(sub.target);
  tessera::Peer& peer = *target.peer;
  tessera::LookupResponseView view;
  if (status.ok()) status = tessera::ParseLookupResponse(response, response_size, &view);
  if (status.ok() && !view.refused) {
    if (view.rows_bytes == sub.rows_bytes) {
      peer.suspect.OnSuccess();
      target.not_owner.OnSuccess();
      fanout_.budget_.OnSuccess();
      *rows = view.rows;
      return status;
    }
    status = Status(Code::kInternal, "sent " + std::to_string(view.rows_bytes) + " bytes of rows, expected " +
                                         std::to_string(sub.rows_bytes));
  }
  peer.failures.fetch_add(1, std::memory_order_relaxed);
  if (view.refused && status.ok()) {
    switch (view.refusal.kind) {
      case RefusalKind::kNotOwner:
        peer.suspect.OnSuccess();  // nothing is wrong with the server itself
        target.not_owner.OnFailure(now_ns);
        if (view.refusal.epoch > route_->epoch()) fanout_.NoteEpoch(route_->model(), view.refusal.epoch);
        break;
      case RefusalKind::kOverloaded:
        peer.suspect.OnLate(now_ns);
        break;
      case RefusalKind::kDraining:
      case RefusalKind::kUnspecified:
        peer.suspect.OnFailure(now_ns);
        break;
      case RefusalKind::kBadRequest:
        break;
    }
    return FromRefusal(view.refusal, final);
  }
  if (status.code() == Code::kDeadlineExceeded || status.code() == Code::kResourceExhausted) {
    peer.suspect.OnLate(now_ns);
  } else {
    peer.suspect.OnFailure(now_ns);
  }
  return Status(status.code(), std::string(tessera::CodeName(status.code())) + ": " + Quote(status.message()));
}

void TesseraLookup::NoteFailure(size_t target, const Status& status) {
  for (Failure& failure : failures_) {
    if (failure.target != target) continue;
    failure.code = status.code();
    failure.text = status.message();
    return;
  }
  failures_.push_back({target, status.code(), status.message()});
}

Status TesseraLookup::NoServerLeft(const tessera::LookupRow& row, const char* reason) const {
  const TesseraRoute::Table& table = route_->table(row.table);
  const TesseraRoute::Replicas replicas = route_->replicas(row.slot);
  std::string message = "model " + route_->model() + ": table \"" + table.name + "\" bucket " +
                        std::to_string(table.Bucket(row.id)) + ": " + reason;
  // One code of all servers is passed on; otherwise what they have in common is that the rows cannot be had.
  Code code = Code::kOk;
  for (size_t i = 0; i < replicas.count; ++i) {
    const size_t target = replicas.begin[i];
    const tessera::Peer& peer = *route_->target(target).peer;
    message += (i == 0 ? ": " : "; ") + Describe(peer) + ": ";
    const auto failure = std::find_if(failures_.begin(), failures_.end(),
                                      [target](const Failure& known) { return known.target == target; });
    Code this_code = Code::kUnavailable;
    if (failure != failures_.end()) {
      message += failure->text;
      this_code = failure->code;
    } else {
      message += peer.transport == nullptr ? "its address is not known" : "not asked";
    }
    code = code == Code::kOk || code == this_code ? this_code : Code::kUnavailable;
  }
  return Status(code, std::move(message));
}

Status TesseraLookup::DeadlineExceeded() const {
  std::vector<size_t> slow;
  const auto add = [&slow](size_t target) {
    if (std::find(slow.begin(), slow.end(), target) == slow.end()) slow.push_back(target);
  };
  for (const Failure& failure : failures_) {
    if (failure.code == Code::kDeadlineExceeded) add(failure.target);
  }
  for (const auto& sub : subs_) {
    if (sub->sent && !sub->settled) add(sub->target);
  }
  std::string message = "model " + route_->model() + ": the deadline passed while " + std::to_string(missing_) +
                        " of " + std::to_string(rows_.size()) + " rows were missing";
  for (size_t i = 0; i < slow.size(); ++i) {
    message += (i == 0 ? "; no answer from " : ", ") + Describe(*route_->target(slow[i]).peer);
  }
  return Status(Code::kDeadlineExceeded, std::move(message));
}
