// A few event threads start all requests, as the pollers of a router do: a client whose answer has arrived sends its
// next request from its event thread, never from the stack that answered.
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>

#include "bench/cpp/batch/batch_load.h"
#include "cpp_ext/batch/lane.h"

namespace tessera::bench {
namespace {

// What a router's poller does around the requests that are ready together.
struct Burst {
  Burst() { BatchLane::BeginBurst(); }
  ~Burst() { BatchLane::EndBurst(); }
};

class EventThread;

struct Client {
  EventThread* home;
  size_t load;
  std::unique_ptr<Call> call;
  const Sample* sample = nullptr;
  Record record;
};

class EventThread {
 public:
  EventThread(const Plan& plan, int64_t begin_ns, int64_t end_ns, uint64_t seed)
      : plan_(plan), end_ns_(end_ns), dice_(seed), records_(plan.loads.size()) {
    for (const Load& load : plan.loads) {
      const double rate = load.rate / plan.event_threads;
      const int64_t start_ns = begin_ns - plan.warm_up_ns;
      streams_.push_back({rate, kNever, {}, 0});
      if (rate > 0) ScheduleAfter(start_ns, &streams_.back());
    }
  }

  void AddClosed(size_t load) { ready_.push_back(NewClient(load)); }

  void Run() {
    prctl(PR_SET_TIMERSLACK, 1UL);
    std::vector<Client*> answered;
    answered.swap(ready_);
    {
      Burst burst;
      for (Client* client : answered) StartNow(client);
    }
    for (;;) {
      {
        Burst burst;
        StartDue();
      }
      int64_t next_ns = kNever;
      for (const Stream& stream : streams_) next_ns = std::min(next_ns, stream.next_ns);
      {
        std::unique_lock<std::mutex> lock(mu_);
        if (ready_.empty() && outstanding_ == 0 && next_ns == kNever) return;
        while (ready_.empty() && NowNs() < next_ns) {
          if (next_ns == kNever) {
            wake_.wait(lock);
          } else {
            wake_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(next_ns)));
          }
        }
        answered.clear();
        answered.swap(ready_);
      }
      Burst burst;
      for (Client* client : answered) OnAnswer(client);
    }
  }
  std::vector<Record>& records(size_t load) { return records_[load]; }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  struct Stream {
    double rate;
    int64_t next_ns;
    std::vector<Client*> free;
    int64_t outstanding;
  };

  static void OnDone(void* arg) {
    auto* client = static_cast<Client*>(arg);
    client->record.done_ns = NowNs();
    EventThread* home = client->home;
    // Notified under the lock: the thread may end as soon as it has seen the last answer.
    std::lock_guard<std::mutex> lock(home->mu_);
    home->ready_.push_back(client);
    if (home->ready_.size() == 1) home->wake_.notify_one();
  }

  void ScheduleAfter(int64_t ns, Stream* stream) {
    stream->next_ns = ns + dice_.Gap(stream->rate);
    if (stream->next_ns >= end_ns_) stream->next_ns = kNever;
  }
  Client* NewClient(size_t load) {
    clients_.push_back(std::make_unique<Client>());
    Client* client = clients_.back().get();
    client->home = this;
    client->load = load;
    client->call = plan_.loads[load].model->NewCall();
    return client;
  }
  void StartNow(Client* client) { Start(client, NowNs()); }
  void Start(Client* client, int64_t arrival_ns) {
    client->record = Record();
    client->record.arrival_ns = arrival_ns;
    client->sample = &dice_.Pick(plan_.loads[client->load].model->samples, plan_.poison, &client->record.poisoned);
    ++outstanding_;
    const int64_t deadline_ns = plan_.deadline_ns == 0 ? 0 : arrival_ns + plan_.deadline_ns;
    client->call->Start(*client->sample, deadline_ns, 0, &EventThread::OnDone, client);
  }
  void StartDue() {
    for (size_t i = 0; i < streams_.size(); ++i) {
      Stream& stream = streams_[i];
      const int64_t now_ns = NowNs();
      while (stream.next_ns <= now_ns) {
        const int64_t arrival_ns = stream.next_ns;
        ScheduleAfter(arrival_ns, &stream);
        if (stream.outstanding >= plan_.max_outstanding) {
          records_[i].push_back({arrival_ns, NowNs(), absl::StatusCode::kResourceExhausted});
          continue;
        }
        ++stream.outstanding;
        Client* client = nullptr;
        if (stream.free.empty()) {
          client = NewClient(i);
        } else {
          client = stream.free.back();
          stream.free.pop_back();
        }
        Start(client, arrival_ns);
      }
    }
  }
  void OnAnswer(Client* client) {
    --outstanding_;
    Judge(*client->call, *client->sample, &client->record);
    records_[client->load].push_back(client->record);
    Stream& stream = streams_[client->load];
    if (stream.rate > 0) {
      --stream.outstanding;
      stream.free.push_back(client);
    } else if (NowNs() < end_ns_) {
      StartNow(client);
    }
  }

  const Plan& plan_;
  const int64_t end_ns_;
  Dice dice_;
  std::vector<Stream> streams_;
  std::vector<std::vector<Record>> records_;
  std::vector<std::unique_ptr<Client>> clients_;
  int64_t outstanding_ = 0;
  std::mutex mu_;
  std::condition_variable wake_;
  std::vector<Client*> ready_;  // guarded by mu_ while Run runs
};

}  // namespace

void DriveByEvents(const Plan& plan, int64_t begin_ns, int64_t end_ns, Outcome* outcome) {
  std::vector<std::unique_ptr<EventThread>> events;
  for (int i = 0; i < plan.event_threads; ++i) {
    events.push_back(std::make_unique<EventThread>(plan, begin_ns, end_ns, static_cast<uint64_t>(i) + 1));
  }
  size_t turn = 0;
  for (size_t i = 0; i < plan.loads.size(); ++i) {
    for (int k = 0; k < plan.loads[i].clients; ++k) events[turn++ % events.size()]->AddClosed(i);
  }
  std::vector<std::thread> threads;
  for (auto& event : events) threads.emplace_back([&event] { event->Run(); });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < plan.loads.size(); ++i) {
    for (auto& event : events) {
      const std::vector<Record>& records = event->records(i);
      outcome->records[i].insert(outcome->records[i].end(), records.begin(), records.end());
    }
  }
}

}  // namespace tessera::bench
