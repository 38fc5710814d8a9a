// One lookup in flight: who was asked for which rows, who answered, whom to ask next.
//
// Every row belongs to the sub-requests that ask a server for it: one at first; after a failure one to the next
// replica; after the retry delay a second one besides (a hedge), of which the first answer wins. The lookup ends when
// all rows are there, a row has no server left to ask, the deadline passes, or it is cancelled: it is then `decided`,
// once. What comes later is only counted.
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
#include "cpp_ext/rpc/route.h"
#include "cpp_ext/rpc/transport.h"

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

  tessera::InFlightLink& in_flight_link() { return in_flight_link_; }

 private:
  // Why a sub-request is sent.
  enum class Cause { kFirst, kRetry, kHedge };

  struct SubRequest {
    // Constant after construction.
    size_t target = 0;
    Cause cause = Cause::kFirst;
    int64_t started_ns = 0;
    // Constant once sent.
    std::vector<uint32_t> positions;  // of its rows
    size_t rows_bytes = 0;
    // Guarded by mu_.
    std::shared_ptr<tessera::TransportCall> call;
    bool sent = false;
    bool settled = false;  // answered, failed, or not sent after all
    bool shared = false;   // another one may ask for the same rows
    bool hedged = false;   // late, and its rows were asked for elsewhere where possible
  };
  using SubRequests = std::vector<SubRequest*>;

  // The last failure of a target in this lookup.
  struct Failure {
    size_t target;
    tessera::Code code;
    std::string text;
  };

  TesseraLookup(TesseraRoute* route, int64_t deadline_ns, TesseraLookupDone done, void* arg);
  ~TesseraLookup() = default;

  // Plans sub-requests for the rows at `positions` into `sends`, one a server. Decides the lookup if one of them has no
  // server left, or there are too many retries. REQUIRES, here and below: mu_ is held.
  void PlanRows(const std::vector<uint32_t>& positions, Cause cause, bool shared, int64_t now_ns, SubRequests* sends);
  // Plans second sub-requests for the rows of a late one, where there are replicas left and the budget allows it.
  void PlanHedge(SubRequest* late, int64_t now_ns, SubRequests* sends);
  void Decide(tessera::Status outcome);

  // What to do after the lock: cancels losers and sends, then tells the caller if the lookup was decided just now; then
  // gives up the caller's hold of busy_. REQUIRES: `lock` holds mu_. The lookup may be gone afterwards.
  void Proceed(std::unique_lock<std::mutex>* lock, const SubRequests& sends);
  void Send(SubRequest* sub);
  void OnAnswer(SubRequest* sub, tessera::Status status, const uint8_t* response, size_t response_size);
  // Copies the rows of an answer. Releases `lock`, which holds mu_, meanwhile if it can.
  void TakeRows(SubRequest* sub, const uint8_t* from, std::unique_lock<std::mutex>* lock);
  void TakeFailure(SubRequest* sub, tessera::Status status, bool final, int64_t now_ns, SubRequests* sends);
  void Report();

  // Says what an answer is worth: its rows, or a failure, `*final` if asking others is useless. Target and peer are
  // trusted or suspected accordingly.
  tessera::Status Judge(const SubRequest& sub, tessera::Status status, const uint8_t* response, size_t response_size,
                        int64_t now_ns, const uint8_t** rows, bool* final);
  void NoteFailure(size_t target, const tessera::Status& status);
  tessera::Status NoServerLeft(const tessera::LookupRow& row, const char* reason) const;
  tessera::Status DeadlineExceeded() const;

  // Constant after construction.
  const tessera::Ref<TesseraRoute> route_;
  tessera::Fanout& fanout_;  // kept by route_
  const int64_t deadline_ns_;
  const TesseraLookupDone done_;
  void* const arg_;

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
  size_t missing_ = 0;            // rows not copied yet
  size_t scattering_ = 0;         // threads that copy rows without the lock
  bool waits_for_timer_ = false;  // the timer holds a reference
  bool decided_ = false;
  bool reported_ = false;
  tessera::Status outcome_;  // constant once decided
};

#endif  // TESSERA_CPP_EXT_RPC_LOOKUP_H_
