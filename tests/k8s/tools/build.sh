#!/usr/bin/env bash
# usage: build.sh DIR: puts what `make test-k8s` needs into DIR, once:
#   checks/     a virtual environment with cel-python, and kubernetes-validate with the schemas of many Kubernetes versions
#   templates   renders the chart's templates with Go's template engine
set -euo pipefail
cd "$(dirname "$0")"
out=$1
go=$(command -v go || echo /usr/local/go/bin/go)
[ -x "$go" ] || { echo "go: not on the PATH, expected Go 1.22 or newer" >&2; exit 1; }
mkdir -p "$out"
"$go" build -p 1 -o "$out/templates" templates.go
stamp=$(sha256sum < build.sh)
if [ "$(cat "$out/checks.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "Installing kubernetes-validate and cel-python"
  rm -rf "$out/checks"
  "${PYTHON:-python3}" -m venv "$out/checks"
  "$out/checks/bin/pip" install -q --disable-pip-version-check kubernetes-validate==1.37.0 cel-python==0.5.0
  echo "$stamp" > "$out/checks.stamp"
fi
