# shellcheck shell=bash
# Programs that the test bed builds or fetches from package registries. Each
# lives in the cache under the hash of what it is made from, so that a second
# call finds it and a changed source is never missed.

KUBERNETES_VERSION=v1.34.4
HELM_VERSION=v3.22.0
# It waits for sessions, which Helm 3 does not.
HELM4_VERSION=v4.3.1
# What Argo CD runs its health checks with.
GLUA_VERSION=v1.1.2
KUBECONFORM_VERSION=v0.8.0
# The Go compiler collects garbage for a seventh of its time; with memory to spare it need not (runtime package, GOGC).
COMPILER_GOGC=400
# Debug information, which the linker would leave out again (-s -w), takes a sixth of its time.
COMPILER_FLAGS=-gcflags=all=-dwarf=false
PAUSE_IMAGE=localhost/blobferry-pause:1
KUBERNETES_COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)

# provide_tools: everything a bed needs, in the cache.
provide_tools() {
  mkdir -p "$BIN"
  locked "$CACHE/locks/tools" provide_all
}

provide_all() {
  provide_kubernetes
  provide_pause
  provide_azurite
  provide_go_program helm "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
  provide_go_program kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM_VERSION"
}

# provide_waiting_tools: what waits for sessions, in the cache; only end-to-end tests need it.
provide_waiting_tools() { locked "$CACHE/locks/tools" provide_all_that_wait; }

provide_all_that_wait() {
  provide_go_program helm4 "helm.sh/helm/v4/cmd/helm@$HELM4_VERSION"
  provide_go_program glua "github.com/yuin/gopher-lua/cmd/glua@$GLUA_VERSION"
}

# provide_kubernetes: one binary for all components, and a link for each.
provide_kubernetes() {
  local source=$TESTBED/kubernetes target component
  target=$CACHE/kubernetes-$(hash_of "$source/go.mod" "$source/go.sum" "$source/main.go")
  if [[ ! -x $target ]]; then
    step "build Kubernetes $KUBERNETES_VERSION (5 to 10 minutes on two cores, once)" build_go "$source" "$target" \
      "-X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION"
  fi
  forget_others "$target" "$CACHE"/kubernetes-*
  ln -sfn "$target" "$BIN/kubernetes"
  for component in "${KUBERNETES_COMPONENTS[@]}"; do
    ln -sfn kubernetes "$BIN/$component"
  done
}

# provide_pause: the image of the first process of each pod.
provide_pause() {
  local target
  target=$(pause_archive)
  [[ -e $target ]] || step "build the pause image" build_pause "$target"
  forget_others "$target" "$CACHE"/pause-*
}

pause_archive() { printf '%s\n' "$CACHE/pause-$(hash_of "$TESTBED"/pause/{go.mod,main.go}).tar"; }

build_pause() {
  local work
  work=$(mktemp -d)
  build_go "$TESTBED/pause" "$work/pause" ""
  write_archive "$1" "$PAUSE_IMAGE" "$work/pause"
  rm -rf "$work"
}

# write_archive ARCHIVE IMAGE PROGRAM: an image of one static program, as a docker
# archive written by hand: one layer with one file, and two small descriptions.
write_archive() {
  local archive=$1 image=$2 program=$3 work diff_id
  work=$(mktemp -d)
  tar --create --owner=0 --group=0 --mtime=@0 --file "$work/layer.tar" \
    --directory "$(dirname "$program")" "$(basename "$program")"
  diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  cat >"$work/config.json" <<JSON
{"architecture":"$(go env GOARCH)","os":"linux","config":{"Entrypoint":["/$(basename "$program")"],"User":"65534:65534"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]\n' "$image" >"$work/manifest.json"
  tar --create --file "$archive.new" --directory "$work" manifest.json config.json layer.tar
  rm -rf "$work"
  mv "$archive.new" "$archive"
}

# provide_azurite: the blob emulator with its dependencies.
provide_azurite() {
  local target
  target=$(azurite_folder)
  [[ -d $target ]] || step "install Azurite" install_azurite "$target"
  forget_others "$target" "$CACHE"/azurite-*
}

azurite_folder() { printf '%s\n' "$CACHE/azurite-$(hash_of "$TESTBED"/azurite/package{,-lock}.json)"; }

install_azurite() {
  local target=$1
  rm -rf "$target.new"
  mkdir -p "$target.new"
  cp "$TESTBED"/azurite/package{,-lock}.json "$target.new"
  npm ci --prefix "$target.new" --omit=dev --ignore-scripts --no-audit --no-fund
  mv "$target.new" "$target"
}

# provide_go_program NAME MODULE@VERSION: a published program, built from its module.
provide_go_program() {
  local name=$1 module=$2 target
  target=$CACHE/$name-${module##*@}
  if [[ ! -x $target ]]; then
    step "build $name ${module##*@}" install_go "$module" "$target"
  fi
  forget_others "$target" "$CACHE/$name"-v*
  ln -sfn "$target" "$BIN/$name"
}

install_go() {
  local module=$1 target=$2 work
  work=$(mktemp -d)
  CGO_ENABLED=0 GOGC=$COMPILER_GOGC GOBIN=$work go install -trimpath "$COMPILER_FLAGS" -ldflags '-s -w' "$module"
  mv "$work/$(basename "${module%@*}")" "$target"
  rmdir "$work"
}

# build_go FOLDER TARGET LDFLAGS: a static program. It takes the target's name
# only when it is complete, so that an interrupted build is never mistaken for one.
build_go() {
  local folder=$1 target=$2 flags=$3
  mkdir -p "$(dirname "$target")"
  CGO_ENABLED=0 GOGC=$COMPILER_GOGC go build -C "$folder" -trimpath "$COMPILER_FLAGS" -ldflags "-s -w $flags" -o "$target.new" .
  mv "$target.new" "$target"
}

# forget_others KEEP PATH...: removes other versions that nobody used for two
# weeks; branches that need different ones do not rebuild at each other's cost.
forget_others() {
  local keep=$1
  shift
  touch "$keep"
  find "$@" -maxdepth 0 ! -path "$keep" -mtime +14 -exec rm -rf {} +
}
