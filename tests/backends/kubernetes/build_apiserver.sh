#!/bin/bash
# Builds kube-apiserver, kube-controller-manager and kubectl from Debian's source package `kubernetes` with Debian's Go,
# into a folder outside the source tree; prints nothing but progress. What is built already is left alone.
#
#   build_apiserver.sh FOLDER      FOLDER/bin gets the three programs; FOLDER needs about 4 GB while it builds
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
programs=(kube-apiserver kube-controller-manager kubectl)

is_built() {
  local program
  for program in "${programs[@]}"; do [[ -x $folder/bin/$program ]] || return 1; done
}

require() { # the Debian packages that the build and the servers need
  local missing=()
  command -v go >/dev/null || missing+=(golang-go)
  command -v rsync >/dev/null || missing+=(rsync)
  command -v dpkg-source >/dev/null || missing+=(dpkg-dev)
  command -v gcc >/dev/null || missing+=(gcc libc6-dev)
  command -v make >/dev/null || missing+=(make)
  command -v etcd >/dev/null || missing+=(etcd-server)
  ((${#missing[@]} == 0)) && return
  if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing on this machine: ${missing[*]}" >&2
    echo "  as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d saved
  saved=$(mktemp)
  # etcd is started by the tests alone: keep its package from starting it, and leave the policy as it was.
  if [[ -e $policy ]]; then cp -p "$policy" "$saved"; else rm "$saved"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  apt-get update -qq
  local installed=0
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || installed=$?
  if [[ -e $saved ]]; then mv "$saved" "$policy"; else rm -f "$policy"; fi
  return "$installed"
}

fetch() { # the source package, through lists of its own: the machine's sources stay as they are
  local lists=$folder/apt
  local options=(
    -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache"
  )
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$folder/source"
  local release=bookworm keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian $release main" >"$lists/sources.list"
  echo 'fetching the source package'
  apt-get -qq "${options[@]}" update
  (cd "$folder/source" && apt-get -qq "${options[@]}" --download-only source kubernetes)
  rm -rf "$tree"
  mkdir -p "${tree%/*}"
  dpkg-source --no-check -x "$folder"/source/kubernetes_*.dsc "$tree" >/dev/null
}

build() {
  export GOPATH=$folder/go GO111MODULE=off GOCACHE=$folder/go-build GOFLAGS=
  cd "$tree"
  echo 'generating files'
  make generated_files >"$folder/generate.log" 2>&1 || { tail -30 "$folder/generate.log" >&2; exit 1; }
  mkdir -p "$folder/bin"
  local program
  for program in "${programs[@]}"; do
    echo "building $program"
    go build -o "$folder/bin/$program.new" "./cmd/$program"
    mv "$folder/bin/$program.new" "$folder/bin/$program"
  done
}

tree=$folder/go/src/k8s.io/kubernetes
require
is_built && exit 0
[[ -f $folder/fetched ]] || { fetch; touch "$folder/fetched"; }
build
# The programs are all that is needed again.
chmod -R u+w "$folder/go" && rm -rf "$folder/go" "$folder/go-build" "$folder/source" "$folder/apt" "$folder/fetched"
