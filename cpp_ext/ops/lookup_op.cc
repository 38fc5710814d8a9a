// TesseraLookup: gathers rows of tables that live on shard servers, for all
// tables of one level of the graph at once.
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "cpp_ext/ops/lookup_flight.h"
#include "cpp_ext/ops/step_context.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/util/util.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

absl::Status LookupShapes(tf::shape_inference::InferenceContext* c) {
  std::vector<tf::PartialTensorShape> row_shapes;
  TF_RETURN_IF_ERROR(c->GetAttr("row_shapes", &row_shapes));
  if (static_cast<int>(row_shapes.size()) != c->num_inputs()) {
    return absl::InvalidArgumentError(absl::StrCat("TesseraLookup: row_shapes has ", row_shapes.size(),
                                                   " entries, expected one per ids (", c->num_inputs(), ")"));
  }
  for (int i = 0; i < c->num_inputs(); ++i) {
    tf::shape_inference::ShapeHandle row, rows;
    TF_RETURN_IF_ERROR(c->MakeShapeFromPartialTensorShape(row_shapes[i], &row));
    TF_RETURN_IF_ERROR(c->Concatenate(c->input(i), row, &rows));
    c->set_output(i, rows);
  }
  return absl::OkStatus();
}

REGISTER_OP("TesseraLookup")
    .Input("ids: Tids")
    .Output("rows: dtypes")
    .Attr("Tids: list({int32, int64}) >= 1")
    .Attr("dtypes: list(type) >= 1")
    .Attr("tables: list(int) >= 1")
    .Attr("table_names: list(string) >= 1")
    .Attr("table_rows: list(int) >= 1")
    .Attr("row_shapes: list(shape) >= 1")
    .SetIsStateful()
    .SetShapeFn(LookupShapes)
    .Doc(R"doc(
Returns rows[i] = table i gathered at ids[i], with one request per shard server for all tables together.

tables: position of each table in the package's manifest; a table may appear more than once.
table_names: names for messages.
table_rows: number of rows; an id outside of [0, rows) is an INVALID_ARGUMENT error.
row_shapes: shape of one row, fully known.
)doc");

// Returns the position of the first id outside of [0, rows), -1 if there is
// none.
template <typename T>
int64_t FirstBadId(const tf::Tensor& ids, int64_t rows) {
  const T* begin = ids.flat<T>().data();
  const int64_t count = ids.NumElements();
  bool bad = false;
  for (int64_t i = 0; i < count; ++i) {
    bad |= static_cast<uint64_t>(static_cast<int64_t>(begin[i])) >= static_cast<uint64_t>(rows);
  }
  if (!bad) return -1;
  for (int64_t i = 0; i < count; ++i) {
    if (static_cast<uint64_t>(static_cast<int64_t>(begin[i])) >= static_cast<uint64_t>(rows)) return i;
  }
  return -1;
}

class LookupOp : public tf::AsyncOpKernel {
 public:
  explicit LookupOp(tf::OpKernelConstruction* ctx) : tf::AsyncOpKernel(ctx) {
    std::vector<int64_t> tables, table_rows;
    std::vector<std::string> names;
    std::vector<tf::PartialTensorShape> row_shapes;
    std::vector<tf::DataType> dtypes;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("tables", &tables));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_names", &names));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_rows", &table_rows));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("row_shapes", &row_shapes));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("dtypes", &dtypes));
    const size_t count = static_cast<size_t>(ctx->num_inputs());
    OP_REQUIRES(ctx,
                tables.size() == count && names.size() == count && table_rows.size() == count &&
                    row_shapes.size() == count && dtypes.size() == count,
                absl::InvalidArgumentError(
                    absl::StrCat("TesseraLookup: every list attribute must have one entry per ids (", count,
                                 "), got tables ", tables.size(), ", table_names ", names.size(), ", table_rows ",
                                 table_rows.size(), ", row_shapes ", row_shapes.size(), ", dtypes ", dtypes.size())));
    for (size_t i = 0; i < count; ++i) {
      Table table;
      table.name = names[i];
      OP_REQUIRES(ctx, tables[i] >= 0 && tables[i] <= UINT32_MAX && table_rows[i] >= 0,
                  absl::InvalidArgumentError(absl::StrCat("TesseraLookup: table ", names[i], ": tables ", tables[i],
                                                          " and table_rows ", table_rows[i], " must not be negative")));
      OP_REQUIRES(ctx, row_shapes[i].AsTensorShape(&table.row_shape) && tf::DataTypeCanUseMemcpy(dtypes[i]),
                  absl::InvalidArgumentError(absl::StrCat("TesseraLookup: table ", names[i], ": row_shape ",
                                                          row_shapes[i].DebugString(), " of ",
                                                          tf::DataTypeString(dtypes[i]), " is not of fixed size")));
      table.ordinal = static_cast<uint32_t>(tables[i]);
      table.rows = table_rows[i];
      table.row_bytes = table.row_shape.num_elements() * tf::DataTypeSize(dtypes[i]);
      tables_.push_back(std::move(table));
    }
  }

  void ComputeAsync(tf::OpKernelContext* ctx, DoneCallback done) override {
    absl::InlinedVector<TesseraGather, 32> gathers;
    StepContext* step = nullptr;
    const absl::Status status = Prepare(ctx, &step, &gathers);
    if (!status.ok() || gathers.empty()) {
      if (!status.ok()) ctx->SetStatus(status);
      return done();
    }
    Flight::Start(std::make_shared<Flight>(step->fanout, step, ctx, std::move(done)), gathers.data(), gathers.size());
  }

 private:
  struct Table {
    std::string name;
    uint32_t ordinal = 0;
    int64_t rows = 0;
    int64_t row_bytes = 0;
    tf::TensorShape row_shape;
  };

  // Checks ids and route, allocates the outputs and lists the gathers that have
  // ids.
  absl::Status Prepare(tf::OpKernelContext* ctx, StepContext** step,
                       absl::InlinedVector<TesseraGather, 32>* gathers) const {
    *step = FindStep(ctx->step_id());
    if (*step == nullptr) {
      return absl::FailedPreconditionError(
          "TesseraLookup runs only in Tessera's own executor: its tables live "
          "on shard servers, which TensorFlow's "
          "session and eager execution cannot reach");
    }
    const StepContext& context = **step;
    if (context.fanout == nullptr || context.route == nullptr) {
      return absl::FailedPreconditionError("TesseraLookup: this request has no route to the tables' servers");
    }
    const uint32_t route_tables = context.fanout->table_count(context.route);
    for (int i = 0; i < ctx->num_inputs(); ++i) {
      const Table& table = tables_[i];
      TF_RETURN_IF_ERROR(CheckRoute(context, table, route_tables));
      const tf::Tensor& ids = ctx->input(i);
      const bool wide = ids.dtype() == tf::DT_INT64;
      const int64_t bad = wide ? FirstBadId<int64_t>(ids, table.rows) : FirstBadId<int32_t>(ids, table.rows);
      if (bad >= 0) return BadId(ids, bad, table);
      tf::TensorShape shape = ids.shape();
      TF_RETURN_IF_ERROR(shape.AppendShapeWithStatus(table.row_shape));
      tf::Tensor* rows = nullptr;
      TF_RETURN_IF_ERROR(ctx->allocate_output(i, shape, &rows));
      if (ids.NumElements() == 0 || table.row_bytes == 0) continue;
      gathers->push_back(
          {table.ordinal, wide ? 8u : 4u, ids.data(), static_cast<size_t>(ids.NumElements()), rows->data()});
    }
    return absl::OkStatus();
  }

  static absl::Status CheckRoute(const StepContext& context, const Table& table, uint32_t route_tables) {
    if (table.ordinal >= route_tables) {
      return absl::FailedPreconditionError(absl::StrCat("table ", table.name, ": the graph wants table ", table.ordinal,
                                                        " of the package, the route has only ", route_tables));
    }
    int64_t rows = 0, row_bytes = 0;
    context.fanout->table_shape(context.route, table.ordinal, &rows, &row_bytes);
    if (rows == table.rows && row_bytes == table.row_bytes) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("table ", table.name, ": the graph expects ", table.rows,
                                                      " rows of ", table.row_bytes, " bytes, the route has ", rows,
                                                      " rows of ", row_bytes, " bytes"));
  }

  // The text of TensorFlow's own gathers.
  static absl::Status BadId(const tf::Tensor& ids, int64_t position, const Table& table) {
    const int64_t id =
        ids.dtype() == tf::DT_INT64 ? ids.flat<int64_t>()(position) : int64_t{ids.flat<int32_t>()(position)};
    return absl::InvalidArgumentError(absl::StrCat("indices", tf::SliceDebugString(ids.shape(), position), " = ", id,
                                                   " is not in [0, ", table.rows, ")"));
  }

  std::vector<Table> tables_;
};

REGISTER_KERNEL_BUILDER(Name("TesseraLookup").Device(tf::DEVICE_CPU), LookupOp);

}  // namespace
}  // namespace tessera
