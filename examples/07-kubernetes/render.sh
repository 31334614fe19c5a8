#!/bin/sh
# Render both environments again: what a CI job commits to the branch that Flux or Argo CD follows.
set -eu
cd "$(dirname "$0")/../.."
fleet=${FLEET:-.venv/bin/fleet}
out=${1:-examples/07-kubernetes/rendered}
here=examples/07-kubernetes
"$fleet" render --target kubernetes manifests/prod.yaml $here/cluster.yaml --out "$out/production"
"$fleet" render --target kubernetes manifests/prod.yaml $here/cluster.yaml $here/staging.yaml --out "$out/staging"
