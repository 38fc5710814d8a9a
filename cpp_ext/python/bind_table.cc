#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/base/hash.h"
#include "cpp_ext/python/bind_rpc.h"
#include "cpp_ext/python/status_caster.h"
#include "cpp_ext/table/blob.h"
#include "cpp_ext/table/held_table.h"
#include "cpp_ext/table/table_store.h"

namespace py = pybind11;

namespace tessera {
namespace {

// pybind11 holds objects as shared_ptr<T>, not shared_ptr<const T>; both types are immutable.
std::shared_ptr<Blob> MapBlob(const std::string& path, uint64_t size_bytes, bool populate) {
  std::shared_ptr<const Blob> blob;
  Status status;
  {
    py::gil_scoped_release release;
    status = Blob::Map(path, size_bytes, populate, &blob);
  }
  Check(status);
  return std::const_pointer_cast<Blob>(blob);
}

std::shared_ptr<HeldTable> MakeHeldTable(std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets,
                                         const std::map<uint64_t, std::shared_ptr<Blob>>& blobs) {
  std::shared_ptr<const HeldTable> table;
  Check(HeldTable::Make(std::move(name), rows, row_bytes, buckets, {blobs.begin(), blobs.end()}, &table));
  return std::const_pointer_cast<HeldTable>(table);
}

py::dict StatsOf(const TableStore& store) {
  const TableStoreStats stats = store.Stats();
  py::dict result;
  result["requests"] = stats.requests;
  result["rows"] = stats.rows;
  result["bytes"] = stats.bytes;
  result["refused_not_owner"] = stats.refused_not_owner;
  result["refused_draining"] = stats.refused_draining;
  result["refused_bad_request"] = stats.refused_bad_request;
  result["refused_overloaded"] = stats.refused_overloaded;
  result["refused_too_large"] = stats.refused_too_large;
  return result;
}

}  // namespace

void BindTable(py::module_& module) {
  module.def(
      "slot_of",
      [](const std::string& table, uint64_t bucket, uint32_t slots) {
        if (slots == 0) Check(Status(Code::kInvalidArgument, "slots: got 0, expected at least 1"));
        return SlotOf(table, bucket, slots);
      },
      py::arg("table"), py::arg("bucket"), py::arg("slots"));

  py::class_<Blob, std::shared_ptr<Blob>>(module, "Blob")
      .def_static("map", &MapBlob, py::arg("path"), py::arg("size_bytes"), py::kw_only(), py::arg("populate") = false)
      .def_property_readonly("path", &Blob::path)
      .def_property_readonly("size_bytes", &Blob::size_bytes);

  py::class_<HeldTable, std::shared_ptr<HeldTable>>(module, "HeldTable")
      .def(py::init(&MakeHeldTable), py::kw_only(), py::arg("name"), py::arg("rows"), py::arg("row_bytes"),
           py::arg("buckets"), py::arg("blobs"));

  py::class_<TableStore, std::shared_ptr<TableStore>>(module, "TableStore")
      .def(py::init<>())
      .def(
          "publish",
          [](TableStore& store, const py::bytes& package_digest, std::string model, int64_t version,
             const std::vector<std::shared_ptr<HeldTable>>& tables) {
            std::string digest = package_digest;
            std::vector<std::shared_ptr<const HeldTable>> held(tables.begin(), tables.end());
            Status status;
            {
              py::gil_scoped_release release;
              status = store.Publish(std::move(digest), std::move(model), version, std::move(held));
            }
            Check(status);
          },
          py::kw_only(), py::arg("package_digest"), py::arg("model"), py::arg("version"), py::arg("tables"))
      .def(
          "retire",
          [](TableStore& store, const py::bytes& package_digest) {
            const std::string digest = package_digest;
            py::gil_scoped_release release;
            return store.Retire(digest);
          },
          py::arg("package_digest"))
      .def(
          "set_placement",
          [](TableStore& store, std::string model, uint64_t epoch, const py::bytes& document) {
            std::string bytes = document;
            py::gil_scoped_release release;
            store.SetPlacement(std::move(model), epoch, std::move(bytes));
          },
          py::kw_only(), py::arg("model"), py::arg("epoch"), py::arg("document"))
      .def("set_draining", &TableStore::SetDraining, py::arg("draining"), py::call_guard<py::gil_scoped_release>())
      .def("stats", &StatsOf);
}

}  // namespace tessera
