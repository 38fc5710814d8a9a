// Batching of whole requests: what TensorFlow Serving does with --enable_batching. Requests of one signature and shape
// are joined along dimension 0, run once, and split again. For models without batched regions, of any platform.
//
// Whether the rows of a model are independent of each other cannot be seen; whoever turns this on says so.
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_BATCH_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_BATCH_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cpp_ext/graph/batch_groups.h"
#include "cpp_ext/graph/batch_region.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/graph/step_runner.h"

namespace tessera {

// The batches of one signature. Thread-safe.
class RequestBatch {
 public:
  // Null, with the reason in `groups`, when requests cannot be joined: an input or output that has no rows, or a fixed
  // number of them, by its declared shape. `types` are those of the signature's inputs.
  static std::unique_ptr<RequestBatch> Make(const Signature& signature, const tensorflow::SignatureDef& def,
                                            const tensorflow::DataTypeVector& types,
                                            std::shared_ptr<const StepRunner> runner, BatchGroups* groups);
  ~RequestBatch() { region_->Close(); }

  // False once an output turned out not to have the inputs' rows; requests are then to be run by themselves.
  bool active() const { return region_->rows_are_split(); }
  const BatchRegion& region() const { return *region_; }

  // Runs `step`, whose args() have the signature's types, and ends with step->Finish. REQUIRES: a valid slot with the
  // context set, and a pin.
  void Submit(Step* step) const { region_->Submit(step); }

 private:
  explicit RequestBatch(std::shared_ptr<BatchRegion> region) : region_(std::move(region)) {}
  const std::shared_ptr<BatchRegion> region_;
};

// What a client is told, in TensorFlow Serving's words.
absl::Status UnequalRows();
absl::Status TooManyRows(int64_t rows, int64_t max_rows);
// A request whose time was up while it waited; `status` as it is when that is not what happened.
absl::Status QueueTimeout(const absl::Status& status, bool started);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_BATCH_H_
