#!/usr/bin/env bash
# usage: build.sh DIR: puts what `make test-k8s` needs into DIR, from the Go module proxy and PyPI, once:
#   bin/     kube-apiserver, kube-controller-manager, kube-scheduler, kubectl (one program); helm, kwok, grpcurl
#   crds/    definitions of the objects of cert-manager, Gateway API and the Prometheus operator
#   stages/  what kwok does to nodes and pods
#   checks/  a virtual environment with cel-python, and kubernetes-validate with the schemas of many Kubernetes versions
# From nothing it takes two processors half an hour, and 3 GB of Go's caches.
set -euo pipefail
cd "$(dirname "$0")"
out=$1
go=$(command -v go || echo /usr/local/go/bin/go)
[ -x "$go" ] || { echo "go: not on the PATH, expected Go 1.26 or newer" >&2; exit 1; }
mkdir -p "$out/bin"

# once PART FILE…: false if PART was made of these files, and of this one, before.
once() {
  part=$1
  stamp=$(cat build.sh "${@:2}" | sha256sum)
  [ "$(cat "$out/$part.stamp" 2>/dev/null)" != "$stamp" ]
}
made() { echo "$stamp" > "$out/$part.stamp"; }

if once checks; then
  echo "Installing kubernetes-validate and cel-python"
  rm -rf "$out/checks"
  "${PYTHON:-python3}" -m venv "$out/checks"
  "$out/checks/bin/pip" install -q --disable-pip-version-check kubernetes-validate==1.37.0 cel-python==0.5.0
  made
fi

if once objects; then
  echo "Copying definitions of custom resources, and what kwok does"
  rm -rf "$out/crds" "$out/stages"
  mkdir "$out/crds" "$out/stages"
  # copy TO MODULE DIRECTORY FILE…: copies YAML files of a module.
  copy() {
    source=$(cd / && "$go" mod download -json "$2" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
    for file in "${@:4}"; do
      cp "$source/$3/$file.yaml" "$out/$1/"
    done
  }
  copy crds github.com/cert-manager/cert-manager@v1.21.2 deploy/crds cert-manager.io_{certificates,issuers}
  copy crds sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard gateway.networking.k8s.io_{grpcroutes,backendtlspolicies}
  copy crds github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd \
    monitoring.coreos.com_{servicemonitors,podmonitors,prometheusrules}
  copy stages sigs.k8s.io/kwok@v0.8.0 kustomize/stage \
    node/fast/node-initialize pod/fast/pod-{ready,complete,delete}
  chmod -R u+w "$out/crds" "$out/stages"
  made
fi

build=("$go" build -p "${JOBS:-2}" -trimpath)
if once clients clients/go.mod; then
  echo "Building helm, kwok and grpcurl"
  (cd clients && "${build[@]}" -o "$out/bin/" -ldflags "-s -w" tool)
  made
fi

if once control-plane controlplane/go.mod controlplane/main.go; then
  echo "Building the control plane of Kubernetes"
  cd controlplane
  version=$("$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  package=k8s.io/component-base/version
  "${build[@]}" -o "$out/bin/controlplane" -ldflags \
    "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}" .
  cd ..
  for name in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    ln -sf controlplane "$out/bin/$name"
  done
  made
fi
