// Python's view of RestEngine: requests go in from an event loop, answers come out in bulk.
#include "cpp_ext/python/bind_rest.h"

#include <pybind11/stl.h>
#include <time.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/json_decode.h"
#include "cpp_ext/graph/json_encode.h"
#include "cpp_ext/graph/json_example.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/predictor.h"
#include "cpp_ext/graph/rest_engine.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;

// Of all headers together: they are copied into every request.
constexpr size_t kMaxMetadataBytes = 8 << 10;
// Headers of the transport, which say nothing of a request.
constexpr std::string_view kDroppedHeaders[] = {"accept",         "accept-encoding", "connection", "content-encoding",
                                                "content-length", "content-type",    "host",       "transfer-encoding"};

void Check(const absl::Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), ToUtf8(status.message()));
}

Method MethodOf(std::string_view name) {
  if (name == "predict") return Method::kPredict;
  if (name == "classify") return Method::kClassify;
  if (name == "regress") return Method::kRegress;
  Check(absl::InvalidArgumentError(absl::StrCat("method: got ", name, ", expected predict, classify or regress")));
  return Method::kPredict;
}

std::string_view View(const py::handle& bytes) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

std::map<std::string, std::string, std::less<>> Metadata(const py::sequence& headers) {
  std::map<std::string, std::string, std::less<>> metadata;
  size_t bytes = 0;
  for (const py::handle header : headers) {
    const auto pair = py::reinterpret_borrow<py::sequence>(header);
    const py::object name_object = pair[0], value_object = pair[1];
    const std::string_view name = View(name_object), value = View(value_object);
    if (std::find(std::begin(kDroppedHeaders), std::end(kDroppedHeaders), name) != std::end(kDroppedHeaders)) continue;
    bytes += name.size() + value.size();
    if (bytes > kMaxMetadataBytes) break;
    metadata.emplace(absl::AsciiStrToLower(name), value);
  }
  return metadata;
}

int64_t DeadlineNs(double timeout_s) {
  if (timeout_s <= 0) return TESSERA_NO_DEADLINE;
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec + static_cast<int64_t>(timeout_s * 1e9);
}

std::unique_ptr<RestEngine> Make(const std::shared_ptr<Predictor>& predictor, int64_t threads, int64_t max_in_flight,
                                 int64_t inline_budget_micros) {
  if (threads < 1 || max_in_flight < 1 || inline_budget_micros < 0) {
    Check(absl::InvalidArgumentError(absl::StrCat("threads, max_in_flight, inline_budget_micros: got ", threads, ", ",
                                                  max_in_flight, ", ", inline_budget_micros,
                                                  ", expected 1, 1, 0 or more")));
  }
  RestOptions options;
  options.threads = static_cast<size_t>(threads);
  options.max_in_flight = static_cast<size_t>(max_in_flight);
  options.inline_budget_ns = inline_budget_micros * 1000;
  absl::StatusOr<std::unique_ptr<RestEngine>> engine = RestEngine::Make(predictor, options);
  Check(engine.status());
  return *std::move(engine);
}

py::object Start(RestEngine& engine, std::string_view method, std::string_view model, std::optional<int64_t> version,
                 std::optional<std::string> label, const py::bytes& body, const py::sequence& headers,
                 double timeout_s) {
  RestRequest request;
  request.method = MethodOf(method);
  request.model = model;
  request.version = version;
  request.label = std::move(label);
  request.body = View(body);
  request.metadata = Metadata(headers);
  request.deadline_ns = DeadlineNs(timeout_s);
  RestAnswer answer;
  uint64_t token = 0;
  {
    py::gil_scoped_release release;
    token = engine.Start(std::move(request), &answer);
  }
  if (token != 0) return py::int_(token);
  return py::make_tuple(answer.code, py::bytes(answer.body));
}

py::list Take(RestEngine& engine) {
  const std::vector<RestAnswer> answers = engine.Take();
  py::list taken(answers.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    taken[i] = py::make_tuple(answers[i].token, answers[i].code, py::bytes(answers[i].body));
  }
  return taken;
}

// As Check, for texts that quote a body.
void CheckQuoting(const Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), ToUtf8(status.message()));
}

py::tuple JsonToInputs(const py::bytes& body, std::vector<std::pair<std::string, int>> signature) {
  std::sort(signature.begin(), signature.end());
  std::vector<JsonInput> inputs;
  for (const auto& [alias, dtype] : signature) inputs.push_back({alias, dtype});
  rapidjson::Document document;
  CheckQuoting(ParseJsonObject(View(body), &document));
  std::string_view name;
  CheckQuoting(JsonSignatureName(document, &name));
  JsonFormat format = JsonFormat::kRow;
  std::string wire;
  CheckQuoting(AppendPredictInputs(document, inputs, name, &format, &wire));
  return py::make_tuple(format == JsonFormat::kRow, py::bytes(wire));
}

py::bytes JsonToExamples(const py::bytes& body) {
  rapidjson::Document document;
  std::string wire;
  CheckQuoting(ParseJsonObject(View(body), &document));
  CheckQuoting(AppendExamples(document, &wire));
  return py::bytes(wire);
}

py::bytes ResponseToJson(std::string_view method, const py::bytes& response, bool rows) {
  std::string json;
  switch (MethodOf(method)) {
    case Method::kClassify:
      CheckQuoting(ClassificationResponseToJson(View(response), &json));
      break;
    case Method::kRegress:
      CheckQuoting(RegressionResponseToJson(View(response), &json));
      break;
    default:
      CheckQuoting(PredictResponseToJson(View(response), rows ? JsonFormat::kRow : JsonFormat::kColumnar, &json));
  }
  return py::bytes(json);
}

}  // namespace

void BindRest(py::module_& module) {
  module.def("json_to_inputs", &JsonToInputs, py::arg("body"), py::arg("signature"));
  module.def("json_to_examples", &JsonToExamples, py::arg("body"));
  module.def("response_to_json", &ResponseToJson, py::arg("method"), py::arg("response"), py::kw_only(),
             py::arg("rows") = true);
  py::class_<RestEngine>(module, "Rest")
      .def(py::init(&Make), py::arg("predictor"), py::kw_only(), py::arg("threads") = 2,
           py::arg("max_in_flight") = 4096, py::arg("inline_budget_micros") = 200)
      .def("start", &Start, py::arg("method"), py::arg("model"), py::arg("version"), py::arg("label"), py::arg("body"),
           py::arg("headers"), py::arg("timeout_s"))
      .def("cancel", &RestEngine::Cancel, py::arg("token"))
      .def("take", &Take)
      .def("fileno", &RestEngine::fd)
      .def_property_readonly("in_flight", &RestEngine::in_flight)
      .def("stop", &RestEngine::Stop, py::call_guard<py::gil_scoped_release>());
}

}  // namespace tessera
