// One lookup in flight: who was asked for which rows, who answered, whom to ask next.
//
// Every row belongs to the sub-requests that ask a server for it: one at first; after a failure one to the next
// replica; after the retry delay a second one besides (a hedge), of which the first answer wins. The lookup ends when
// all rows are there, a row has no server left to ask, the deadline passes, or it is cancelled: it is then `decided`,
// once. What comes later is only counted.
//
// Sub-requests go through the queue of their server, where they may be merged with those of other lookups. A lookup
// that had to queue keeps its deadline by the timer, as the RPC may have a later one.
//
// Thread-safety: all methods may be called from any thread. The lock is held for bookkeeping only; rows are copied
// outside of it unless two servers were asked for them.
#ifndef TESSERA_CPP_EXT_RPC_LOOKUP_H_
#define TESSERA_CPP_EXT_RPC_LOOKUP_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/in_flight.h"
#include "cpp_ext/rpc/lookup_rows.h"
#include "cpp_ext/rpc/ref.h"
#include "cpp_ext/rpc/retry_timer.h"
#include "cpp_ext/rpc/sub_request.h"

struct TesseraLookup final : public tessera::TimerEntry {
 public:
  // As TesseraFanoutApi.start; the reference is the caller's.
  static TesseraLookup* Start(TesseraRoute* route, const TesseraGather* gathers, size_t gathers_count,
                              int64_t deadline_ns, TesseraLookupDone done, void* arg);

  void Cancel();

  void AddRef() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // Sends hedges for what is late.
  void OnTimer() override;

  // Takes what came for `sub`: the rows at `rows`, or a failure, `final` if asking others is useless.
  void OnAnswer(tessera::SubRequest* sub, tessera::Status status, const uint8_t* rows, bool final);

  tessera::InFlightLink& in_flight_link() { return in_flight_link_; }

 private:
  using Cause = tessera::Cause;
  using SubRequest = tessera::SubRequest;
  using SubRequests = std::vector<SubRequest*>;

  // The deadline's place in the timer.
  struct DeadlineEntry final : public tessera::TimerEntry {
    explicit DeadlineEntry(TesseraLookup* owner) : lookup(owner) {}
    void OnTimer() override { lookup->OnDeadline(); }
    TesseraLookup* const lookup;
  };

  // The last failure of a target in this lookup.
  struct Failure {
    size_t target;
    tessera::Code code;
    std::string text;
  };

  TesseraLookup(TesseraRoute* route, int64_t deadline_ns, TesseraLookupDone done, void* arg);
  ~TesseraLookup() = default;

  // Plans sub-requests for the rows at `positions` into `sends`, one a server, or several where messages would be too
  // large. Decides the lookup if a row has no server left or is too large by itself, or there are too many retries.
  // REQUIRES, here and below: mu_ is held.
  void PlanRows(const std::vector<uint32_t>& positions, Cause cause, bool shared, int64_t now_ns, SubRequests* sends);
  // Plans second sub-requests for the rows of a late one, where there are replicas left and the budget allows it.
  void PlanHedge(SubRequest* late, int64_t now_ns, SubRequests* sends);
  // Returns a new sub-request to `target`; null if the budget has none, which decides the lookup for the sake of `row`.
  SubRequest* NewSubRequest(size_t target, Cause cause, bool shared, int64_t now_ns, const tessera::LookupRow& row);
  void Decide(tessera::Status outcome);
  void KeepDeadline();

  // What to do after the lock: withdraws losers and sends, then tells the caller if the lookup was decided just now;
  // then gives up the caller's hold of busy_. REQUIRES: `lock` holds mu_. The lookup may be gone afterwards.
  void Proceed(std::unique_lock<std::mutex>* lock, const SubRequests& sends);
  void Send(SubRequest* sub);
  void Withdraw(SubRequest* sub);
  void OnDeadline();
  // Copies the rows of an answer. Releases `lock`, which holds mu_, meanwhile if it can.
  void TakeRows(SubRequest* sub, const uint8_t* from, std::unique_lock<std::mutex>* lock);
  void TakeFailure(SubRequest* sub, tessera::Status status, bool final, int64_t now_ns, SubRequests* sends);
  void Report();
  // REQUIRES: the route has a trace.
  void TraceAnswer(const SubRequest& sub, const tessera::Status& status) const;
  void TraceEnd() const;

  void NoteFailure(size_t target, const tessera::Status& status);
  tessera::Status NoServerLeft(const tessera::LookupRow& row, const char* reason) const;
  tessera::Status RowTooLarge(const tessera::LookupRow& row) const;
  tessera::Status DeadlineExceeded() const;

  // Constant after construction.
  const tessera::Ref<TesseraRoute> route_;
  tessera::Fanout& fanout_;  // kept by route_
  const int64_t deadline_ns_;
  const TesseraLookupDone done_;
  void* const arg_;
  size_t traced_ = 0;                   // its number in the route's trace, if there is one
  DeadlineEntry deadline_entry_{this};  // what is in it belongs to the timer

  // Constant once Start has collected them, but for the fields of a row that say otherwise.
  std::vector<tessera::LookupRow> rows_;
  std::vector<tessera::LookupRepeat> repeats_;

  // Own synchronisation.
  std::atomic<int64_t> references_{1};
  // Sub-requests not over yet and threads at work here. From Start until it is 0 the lookup is in fanout_.in_flight_,
  // which holds a reference.
  std::atomic<int64_t> busy_{1};
  tessera::InFlightLink in_flight_link_;

  // Guarded by mu_.
  std::mutex mu_;
  std::vector<std::unique_ptr<SubRequest>> subs_;
  std::vector<Failure> failures_;
  size_t missing_ = 0;               // rows not copied yet
  size_t scattering_ = 0;            // threads that copy rows without the lock
  bool waits_for_timer_ = false;     // the timer holds a reference
  bool waits_for_deadline_ = false;  // the timer holds another
  bool decided_ = false;
  bool reported_ = false;
  tessera::Status outcome_;  // constant once decided
};

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_H_
