# Everything a developer does is a target here; CI calls only these. `make help` lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := g++ python3-venv python3-dev libgrpc++-dev libssl-dev libre2-dev libabsl-dev libc-ares-dev \
  zlib1g-dev libprotozero-dev rapidjson-dev libgtest-dev etcd-server nghttp2-client libtcmalloc-minimal4 curl ccache
PYTHON_SOURCES := tessera protos placement partition batching cpp_ext router shard_server admin bench examples tests
CPP_SOURCES = $(shell git ls-files -co --exclude-standard '*.cc' '*.h')
JOBS ?= $(shell nproc)
CMAKE_FLAGS = -G Ninja -DCMAKE_CXX_COMPILER=g++ -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DPython_EXECUTABLE=$(abspath $(BIN)/python)
CMAKE := $(BIN)/cmake
CTEST := $(BIN)/ctest
# The C++ tests build what the modules are built of: the same objects, compiled once, since compiler and flags are the
# same. `=`: ccache may come with `system`.
export CMAKE_CXX_COMPILER_LAUNCHER = $(shell command -v ccache)
export CCACHE_DIR ?= $(abspath build/ccache)
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up -------------------------------------------------------------------------------------------------

.PHONY: system
system: ## install the Debian packages that are missing (needs root or sudo)
	@missing=$$(for p in $(SYSTEM_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "Installing Debian packages:" $$missing; \
	  run=; [ "$$(id -u)" = 0 ] || run=sudo; \
	  $$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

$(VENV)/.deps: requirements.lock | system
	@echo "Installing Python packages into $(VENV) (TensorFlow is large; some minutes on a slow network)"
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version}" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.deps build ## system packages, virtual environment, native build

.PHONY: build
build: $(VENV)/.deps ## build the native core and install the checkout (editable, incremental)
	@echo "Building the native core (minutes the first time)"
	@SKBUILD_CMAKE_DEFINE=CMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e . 

# --- tests --------------------------------------------------------------------------------------------------

.PHONY: test
test: setup test-cpp ## all tests: C++, unit, native, integration
	$(BIN)/python -m pytest -q
	@# A process has one fan-out for all its graphs; these tests put a fake one in its place.
	$(BIN)/python -m pytest -q tests/alone

build/cpp/build.ninja: | $(VENV)/.deps
	$(CMAKE) -S . -B build/cpp $(CMAKE_FLAGS) -DCMAKE_BUILD_TYPE=Release -DTESSERA_TESTS=ON

.PHONY: simulate
simulate: setup ## 10,000 runs of changes of placement on virtual time (an hour or two); a seed that fails is printed
	TESSERA_SEEDS=10000 $(BIN)/python -m pytest -q -x tests/unit/test_reshard_simulated.py

.PHONY: test-tutorials
test-tutorials: setup ## follow the tutorials as a reader would: full-size Inception-v3, training on parameter servers (minutes)
	TESSERA_TUTORIALS=full $(BIN)/python -m pytest -q tests/integration/test_tutorials.py

.PHONY: test-cpp
test-cpp: build/cpp/build.ninja ## the C++ tests
	$(CMAKE) --build build/cpp -j $(JOBS)
	$(CTEST) --test-dir build/cpp --output-on-failure

.PHONY: test-asan
test-asan: $(VENV)/.deps ## the C++ tests without TensorFlow under AddressSanitizer and UBSan
	$(CMAKE) -S . -B build/asan $(CMAKE_FLAGS) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTESSERA_TESTS=ON -DTESSERA_TENSORFLOW=OFF -DTESSERA_SANITIZE=address,undefined
	$(CMAKE) --build build/asan -j $(JOBS)
	$(CTEST) --test-dir build/asan --output-on-failure

.PHONY: test-tsan
test-tsan: $(VENV)/.deps ## the C++ tests without TensorFlow under ThreadSanitizer
	$(CMAKE) -S . -B build/tsan $(CMAKE_FLAGS) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTESSERA_TESTS=ON -DTESSERA_TENSORFLOW=OFF -DTESSERA_SANITIZE=thread
	$(CMAKE) --build build/tsan -j $(JOBS)
	$(CTEST) --test-dir build/tsan --output-on-failure

.PHONY: k8s-render
k8s-render: $(VENV)/.deps ## render k8s/ for the tests and make the Helm chart's templates (needs kubectl or kustomize)
	PYTHONPATH=tests:. $(BIN)/python -m support.k8s_render

.PHONY: k8s-tools
k8s-tools: ## what `make test-k8s` needs, in build/k8s-tools: Kubernetes, Helm, kwok (needs Go and PyPI; half an hour, once)
	PYTHON=$(PYTHON) nice -n 19 tests/k8s/tools/build.sh $(abspath build/k8s-tools)

.PHONY: test-k8s
test-k8s: $(VENV)/.deps k8s-tools ## the manifests: schemas, Helm, and a real API server with its controllers (minutes)
	$(BIN)/python -m pytest -q tests/k8s

# Tests of faults in tests/integration are part of `make test` as well; here they run longer, at a higher rate.
FAULT_TESTS := tests/faults tests/integration/test_network_faults.py
FAULT_ENV := TESSERA_FAULT_RATE=200 TESSERA_FAULT_DROPS=100
.PHONY: test-faults
test-faults: setup ## faults of processes, etcd, networks, disks, memory and clocks under load (20 minutes; some skip without root or faketime)
	$(FAULT_ENV) $(BIN)/python -m pytest -q $(FAULT_TESTS)

.PHONY: fault-table
fault-table: setup ## the same, and docs/reliability.md gets what was measured; wants a quiet machine
	rm -f build/faults.jsonl
	$(FAULT_ENV) TESSERA_FAULT_REPORT=build/faults.jsonl $(BIN)/python -m pytest -q $(FAULT_TESTS)
	PYTHONPATH=tests:. $(BIN)/python -m support.fault_report build/faults.jsonl docs/reliability.md

.PHONY: test-monitoring
test-monitoring: setup ## alert rules and dashboards, against promtool and a Prometheus that scrapes a cluster (installs Debian's prometheus)
	@command -v promtool >/dev/null || $(MAKE) --no-print-directory system SYSTEM_PACKAGES=prometheus
	$(BIN)/python -m pytest -q tests/monitoring

FUZZ_SECONDS ?= 30
.PHONY: fuzz
fuzz: $(VENV)/.deps ## libFuzzer on what parses requests, FUZZ_SECONDS each (needs clang)
	$(CMAKE) -S . -B build/fuzz $(CMAKE_FLAGS) -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DTESSERA_FUZZ=ON
	$(CMAKE) --build build/fuzz --target fuzzers
	PYTHONPATH=tests $(BIN)/python tests/fuzz/write_seeds.py build/fuzz/seeds
	for fuzzer in build/fuzz/fuzzers/*; do name=$$(basename $$fuzzer); mkdir -p build/fuzz/corpus/$$name build/fuzz/seeds/$$name; \
	  $$fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=4096 -artifact_prefix=build/fuzz/$$name- \
	    build/fuzz/corpus/$$name build/fuzz/seeds/$$name || exit 1; done

# --- quality ------------------------------------------------------------------------------------------------

.PHONY: check
check: ## linters, types, layers, formats (after `make setup`, which generates what the types need)
	@test -e protos/serving_pb2.py || { echo "protos are not generated yet: run 'make setup' first"; exit 1; }
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/typos

.PHONY: fmt
fmt: ## format everything
	$(BIN)/ruff check --fix-only -q $(PYTHON_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/clang-format -i $(CPP_SOURCES)

# --- use ----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## train, partition, serve over four shard servers, compare with plain TensorFlow
	@$(BIN)/python -m examples.stdlib_modules

.PHONY: bench
bench: setup ## measure against baselines; writes bench/results/latest.json, tables and plots
	$(BIN)/python -m bench
	$(BIN)/python -m bench.render README.md --without 'batch_*'
	$(BIN)/python -m bench.render batching/README.md --only 'batch_*'
	$(BIN)/python -m bench.plot_batching

IMAGE ?= tessera:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_BUILDER ?= docker
IMAGE_FLAGS ?=
.PHONY: image
image: ## build the container image (IMAGE_BUILDER=docker, podman or buildah; IMAGE_FLAGS for more)
	$(IMAGE_BUILDER) build --tag $(IMAGE) --build-arg REVISION=$$(git describe --always --dirty) $(IMAGE_FLAGS) .

.PHONY: image-check
image-check: setup ## build the image without an engine (buildah, debootstrap, crun; root; half an hour the first time) and serve through it
	.ci/image-check

.PHONY: lock
lock: ## renew requirements.lock from pyproject.toml
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install -q --disable-pip-version-check $$($(PYTHON) -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); p = t["project"]; print(*(t["build-system"]["requires"] + p["dependencies"] + sum(p["optional-dependencies"].values(), [])))')
	{ echo "# Exact versions of everything that 'make setup' installs; renew with 'make lock'."; build/lock/bin/pip freeze; } > requirements.lock

.PHONY: wheel
wheel: $(VENV)/.deps ## build a wheel into dist/
	$(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist .

.PHONY: clean
clean: ## remove what was built (not the virtual environment)
	rm -rf build dist .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache protos/*_pb2.py protos/*_pb2.pyi protos/*.binpb
