// The C interface between the native libraries of one process.
//
// `_rpc` (gRPC, no TensorFlow), `_graph` and `libtessera_ops` (TensorFlow, no gRPC) are separate shared
// objects whose C++ types must not meet: each links its own copy of what the others hide. They talk only
// through the tables of function pointers below, which Python hands from one to the other in capsules
// (`TESSERA_HANDLER_CAPSULE`, `TESSERA_FANOUT_CAPSULE`, `TESSERA_ROUTE_CAPSULE`). No C++ type and no
// exception crosses.
//
// Thread-safety: every function may be called from any thread unless it says otherwise.
// Times are nanoseconds of CLOCK_MONOTONIC; `TESSERA_NO_DEADLINE` stands for none.
// Status codes are gRPC's (= TensorFlow's) numbers, 0 is OK.
#ifndef TESSERA_CPP_EXT_BASE_ABI_H_
#define TESSERA_CPP_EXT_BASE_ABI_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Raised by every incompatible change; each side refuses a table with another number.
#define TESSERA_ABI_VERSION 4
#define TESSERA_NO_DEADLINE INT64_MAX

#define TESSERA_HANDLER_CAPSULE "tessera.handler"
#define TESSERA_FANOUT_CAPSULE "tessera.fanout"
#define TESSERA_ROUTE_CAPSULE "tessera.route"

// --- Unary calls: `_rpc` hands them to a handler ------------------------------------------------------

// One call in progress. Owned by `_rpc` from the moment it is handed to the handler until `finish`.
typedef struct TesseraCall TesseraCall;

// What a handler may do with a call.
typedef struct TesseraCallApi {
  uint32_t abi_version;
  // The request message, contiguous. Valid until `finish`.
  const uint8_t* (*request)(TesseraCall* call, size_t* size_bytes);
  int64_t (*deadline_ns)(TesseraCall* call);
  // The first value that the caller sent as metadata (a header) under `key`, lower case; null if there is none. Valid
  // until `finish`.
  const uint8_t* (*metadata)(TesseraCall* call, const char* key, size_t key_size, size_t* value_size);
  // REQUIRES: called at most once, before `finish`. `on_cancel(arg)` runs at most once, on a poller thread,
  // if the client goes away or the deadline passes before `finish`; it may run before this returns, and
  // never runs after `finish` has returned. It must not block and must not call `finish` itself on the same stack.
  void (*notify_on_cancel)(TesseraCall* call, void (*on_cancel)(void* arg), void* arg);
  // Asks the caller not to come again before `delay_ms`, if the call ends with an error. REQUIRES: before `finish`.
  void (*push_back)(TesseraCall* call, int64_t delay_ms);
  // Ends the call exactly once; `call` is invalid afterwards. With code 0, `response` is the message and is
  // freed by `free_response(free_arg)` once sent; with another code `message` (UTF-8, copied) is the status
  // text and response is ignored (free_response is still called when it is not null).
  void (*finish)(TesseraCall* call, int code, const char* message, size_t message_size, const uint8_t* response,
                 size_t response_size, void (*free_response)(void* free_arg), void* free_arg);
} TesseraCallApi;

// For a handler that would rather see all calls that are ready before it works on the first. A poller calls `begin`,
// hands out what is ready for as long as `pending` returns nonzero, and calls `end`, all on its thread; none of them
// may block, but `end` may work as `handle` may.
typedef struct TesseraBurst {
  void (*begin)(void* context);
  // Whether something waits for the end of the burst.
  int (*pending)(void* context);
  void (*end)(void* context);
} TesseraBurst;

// A handler of one or more unary methods. Lives as long as the server that serves it.
typedef struct TesseraHandler {
  uint32_t abi_version;
  void* context;
  // Runs on a poller thread; must not block. Ends in exactly one `api->finish`, now or later, on any thread.
  void (*handle)(void* context, const TesseraCallApi* api, TesseraCall* call);
  const TesseraBurst* burst;  // null: each call is handled for itself
} TesseraHandler;

// --- Fan-out: ops ask `_rpc` for rows of tables that live on shard servers -------------------------------

// Where the tables of one package live in one epoch: immutable, reference-counted.
typedef struct TesseraRoute TesseraRoute;
// One lookup in flight.
typedef struct TesseraLookup TesseraLookup;

// One gather. `ids` and `rows` must stay valid until `done` has run.
typedef struct TesseraGather {
  uint32_t table;           // position in the package's manifest
  uint32_t id_width_bytes;  // 4 or 8; ids are signed little-endian integers
  const void* ids;
  size_t ids_count;
  void* rows;  // out: ids_count rows of the table, in the order of ids (repeated ids give repeated rows)
} TesseraGather;

// Runs exactly once per lookup, on any thread, possibly before `start` returns. `message` is valid during the call.
// With code 0 every row has been written. Afterwards nothing touches ids or rows any more.
typedef void (*TesseraLookupDone)(void* arg, int code, const char* message, size_t message_size);

typedef struct TesseraFanoutApi {
  uint32_t abi_version;
  void (*retain_route)(TesseraRoute* route);
  void (*release_route)(TesseraRoute* route);
  uint32_t (*table_count)(const TesseraRoute* route);
  // Rows of a table and bytes of one row. REQUIRES: table < table_count.
  void (*table_shape)(const TesseraRoute* route, uint32_t table, int64_t* rows, int64_t* row_bytes);
  // Looks `gathers` up with one RPC per server, retrying on replicas until `deadline_ns`. REQUIRES: every id is in
  // [0, rows) (an id that is not fails the lookup with INVALID_ARGUMENT). Copies the array `gathers` itself.
  // Returns a handle to be given to `release_lookup` exactly once.
  TesseraLookup* (*start)(TesseraRoute* route, const TesseraGather* gathers, size_t gathers_count, int64_t deadline_ns,
                          TesseraLookupDone done, void* arg);
  // Asks for an early end with CANCELLED; `done` still runs exactly once. Harmless after `done`.
  void (*cancel)(TesseraLookup* lookup);
  void (*release_lookup)(TesseraLookup* lookup);
  // The newest epoch of the route's model that a server named when it refused a lookup, if it is newer than the
  // route's; else 0. May take a lock: for what has failed.
  uint64_t (*newer_epoch)(const TesseraRoute* route);
} TesseraFanoutApi;

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // TESSERA_CPP_EXT_BASE_ABI_H_
