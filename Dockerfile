# One image for all of Tessera: router, shard server, `tessera`, `tensorflow_model_server`. docs/container-image.md explains it.
#
#   base          Debian with Python and the shared libraries that the native core needs
#   dependencies  what pyproject.toml asks for, in the versions of requirements.lock
#   build         the compiler, and our own wheel
#   trimmed       the dependencies without what only compilers and installers need
#   image         base + trimmed + our own wheel: no compiler, no pip, no headers

# A digest names one content for ever; renew it on purpose (docs/container-image.md).
ARG BASE=docker.io/library/debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${BASE} AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 libstdc++6 libabsl20220623 libre2-9 libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig /var/log/apt /var/log/dpkg.log

FROM base AS dependencies
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml requirements.lock ./
# Of pyproject's extras, separated by blanks: "onnx", "tflite".
ARG EXTRAS=""
# The secret is for those who install from an index of their own; without it nothing is mounted.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/tessera \
    && python3 -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *(r for e in sys.argv[1:] for r in p["optional-dependencies"][e]), sep="\n")' ${EXTRAS} > runtime.txt \
    && /opt/tessera/bin/pip install --no-cache-dir --no-compile --constraint requirements.lock --requirement runtime.txt

FROM dependencies AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ python3-dev libgrpc++-dev libssl-dev libre2-dev libabsl-dev libc-ares-dev zlib1g-dev libprotozero-dev rapidjson-dev \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/build \
    && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > build.txt \
    && /opt/build/bin/pip install --no-cache-dir --constraint requirements.lock --requirement build.txt
COPY . .
ARG JOBS=2
RUN TESSERA_TF_DIR=$(echo /opt/tessera/lib/python3*/site-packages/tensorflow) CMAKE_BUILD_PARALLEL_LEVEL=${JOBS} PATH=/opt/build/bin:$PATH \
        /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /opt/wheel . \
    && /opt/tessera/bin/pip install --no-cache-dir --no-compile --no-deps --prefix /opt/own /opt/wheel/*.whl \
    && python3 -m compileall -q -j ${JOBS} -s /opt/own -p /opt/tessera --invalidation-mode unchecked-hash /opt/own/lib
# What was linked into the native core: the list of contents has it, too.
RUN dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' \
        libgrpc++-dev libssl-dev libre2-dev libabsl-dev libc-ares-dev zlib1g-dev libprotozero-dev rapidjson-dev > /opt/own/built-in.txt

FROM dependencies AS trimmed
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
ARG JOBS=2
# libclang is asked for by TensorFlow's wheel and used by nothing that it has; symbol tables are for debuggers.
RUN cd /opt/tessera/lib/python3*/site-packages \
    && rm -rf tensorflow/include tensorflow/xla_aot_runtime_src \
    && strip --strip-unneeded tensorflow/libtensorflow_cc.so.2 tensorflow/libtensorflow_framework.so.2 \
    && /opt/tessera/bin/pip uninstall --yes libclang setuptools pip \
    && python3 -m compileall -q -j ${JOBS} --invalidation-mode unchecked-hash .

FROM base AS image
COPY --from=trimmed /opt/tessera /opt/tessera
COPY --from=build /opt/own /opt/tessera
ENV PATH=/opt/tessera/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4
# The list of contents (CycloneDX), made from what is there.
RUN python -m admin.sbom --built-in /opt/tessera/built-in.txt > /opt/tessera/sbom.cdx.json

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Serves TensorFlow models that are too big for one machine" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"

# The router: gRPC, REST, metrics. A shard server: gRPC, metrics.
EXPOSE 8500 8501 8502 8600 8601
# By number, so that Kubernetes can see that it is not root. Nothing in the image belongs to it.
USER 65532:65532
WORKDIR /tmp
STOPSIGNAL SIGTERM
# Kubernetes has probes of its own, /healthz and /readyz.
HEALTHCHECK NONE
CMD ["tessera", "--help"]
