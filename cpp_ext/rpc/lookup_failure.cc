// What failures of sub-requests, and the deadline, mean for the lookup.
#include <algorithm>
#include <mutex>
#include <utility>

#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup.h"

using tessera::Code;
using tessera::Status;

namespace {

std::string Describe(const tessera::Peer& peer) {
  return peer.address.empty() ? peer.server_id : peer.server_id + " (" + peer.address + ")";
}

}  // namespace

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

Status TesseraLookup::RowTooLarge(const tessera::LookupRow& row) const {
  const TesseraRoute::Table& table = route_->table(row.table);
  return Status(Code::kResourceExhausted, "model " + route_->model() + ": a row of table \"" + table.name + "\" has " +
                                              std::to_string(table.row_bytes) +
                                              " bytes, which do not fit into a message of max_message_bytes, " +
                                              std::to_string(fanout_.options_.max_message_bytes));
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

void TesseraLookup::KeepDeadline() {
  if (decided_ || waits_for_deadline_ || deadline_ns_ == TESSERA_NO_DEADLINE) return;
  AddRef();
  waits_for_deadline_ = true;
  fanout_.timer_->ScheduleDeadline(&deadline_entry_, deadline_ns_);
}

void TesseraLookup::OnDeadline() {
  std::unique_lock<std::mutex> lock(mu_);
  waits_for_deadline_ = false;
  if (!decided_) {
    busy_.fetch_add(1, std::memory_order_relaxed);
    const int64_t now_ns = fanout_.now_ns_();
    for (const auto& sub : subs_) {
      if (sub->sent && !sub->settled) route_->target(sub->target).peer->suspect.OnLate(now_ns);
    }
    Decide(DeadlineExceeded());
    Proceed(&lock, {});
  }
  if (lock.owns_lock()) lock.unlock();
  Release();  // the timer's
}
