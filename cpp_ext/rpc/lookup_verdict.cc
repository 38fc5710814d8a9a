// What the answer to an RPC is worth, and what it says of the server.
#include <string>
#include <string_view>
#include <utility>

#include "cpp_ext/rpc/code_name.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup_call.h"
#include "cpp_ext/table/lookup_message.h"

namespace tessera {
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

Status FromRefusal(const Refusal& refusal) {
  std::string text = std::string(RefusalKindName(refusal.kind)) + ": " + Quote(refusal.message);
  switch (refusal.kind) {
    case RefusalKind::kBadRequest:
      return Status(Code::kInternal, std::move(text));  // the fault is on this side
    case RefusalKind::kOverloaded:
      return Status(Code::kResourceExhausted, std::move(text));
    case RefusalKind::kNotOwner:
    case RefusalKind::kDraining:
    case RefusalKind::kUnspecified:
      break;
  }
  return Status(Code::kUnavailable, std::move(text));
}

}  // namespace

LookupVerdict LookupCall::Judge(Status status, const uint8_t* response, size_t response_size, bool wanted,
                                int64_t now_ns) const {
  LookupVerdict verdict;
  // What was cancelled, or is no longer waited for, says nothing against the server.
  if (!status.ok() && !wanted) {
    verdict.status = std::move(status);
    return verdict;
  }
  const TesseraRoute::Target& target = route_->target(queue_->target_);
  Peer& peer = *target.peer;
  Fanout& fanout = route_->fanout();
  LookupResponseView view;
  const bool answered = status.ok();
  if (answered) status = ParseLookupResponse(response, response_size, &view);
  if (status.ok() && !view.refused) {
    if (view.rows_bytes == size_.rows_bytes) {
      peer.suspect.OnSuccess();
      target.not_owner.OnSuccess();
      peer.outlier.OnAnswer(/*failed=*/false, now_ns - started_ns_);
      verdict.rows = view.rows;
      return verdict;
    }
    status = Status(Code::kInternal, "sent " + std::to_string(view.rows_bytes) + " bytes of rows, expected " +
                                         std::to_string(size_.rows_bytes));
  }
  peer.failures.fetch_add(1, std::memory_order_relaxed);
  if (view.refused && status.ok()) {
    if (view.refusal.epoch > route_->epoch()) {
      fanout.NoteEpoch(route_->model(), view.refusal.epoch, view.refusal.placement);
    }
    switch (view.refusal.kind) {
      case RefusalKind::kNotOwner:
        peer.suspect.OnSuccess();  // nothing is wrong with the server itself
        target.not_owner.OnFailure(now_ns);
        break;
      case RefusalKind::kOverloaded:
        peer.suspect.OnLate(now_ns);
        break;
      case RefusalKind::kDraining:
      case RefusalKind::kUnspecified:
        peer.suspect.OnFailure(now_ns);
        break;
      case RefusalKind::kBadRequest:
        verdict.final = verdict.blames_request = true;
        break;
    }
    verdict.status = FromRefusal(view.refusal);
    return verdict;
  }
  if (status.code() == Code::kDeadlineExceeded || status.code() == Code::kResourceExhausted) {
    peer.suspect.OnLate(now_ns);
  } else {
    peer.suspect.OnFailure(now_ns);
  }
  // Refusals do not count: they say what they mean.
  peer.outlier.OnAnswer(/*failed=*/true, now_ns - started_ns_);
  // A server may take smaller messages than this side sends.
  verdict.blames_request = !answered && status.code() == Code::kResourceExhausted;
  verdict.status = Status(status.code(), std::string(CodeName(status.code())) + ": " + Quote(status.message()));
  return verdict;
}

}  // namespace tessera
