# shellcheck shell=bash
# Blobferry on the cluster of $KUBECONFIG, by its chart.

RELEASE=blobferry
RELEASE_NAMESPACE=blobferry-system

# install_blobferry OPERATOR-IMAGE UPLOADER-IMAGE ACCOUNT-HOST [OPTION...]:
# installs or upgrades; ready when it returns. Sessions may upload to Azure and to
# that host, or several with commas between them. Options are Helm's.
install_blobferry() {
  helm upgrade --install "$RELEASE" "$REPOSITORY/charts/blobferry" --namespace "$RELEASE_NAMESPACE" --create-namespace \
    --set "image.operator.repository=${1%:*},image.operator.tag=${1##*:}" \
    --set "image.uploader.repository=${2%:*},image.uploader.tag=${2##*:}" \
    --set "accountHostSuffixes={.blob.core.windows.net,$3}" \
    --wait --timeout 5m "${@:4}"
}

# load_and_install BED [OPTION...]: builds the images, gives them to the bed's node
# and installs them; options are Helm's. The images keep their name, so pods of older ones are restarted.
load_and_install() {
  local archives
  archives=$("$TESTBED/images")
  load_and_install_these "$archives" "$@"
}

# load_and_install_these ARCHIVES BED [OPTION...]: the same with images that are built.
load_and_install_these() {
  local archives=$1 bed=$2 loaded
  loaded=$BED_DIR/loaded-images
  # shellcheck disable=SC2086 # one word for each archive
  [[ -e $loaded && $(<"$loaded") == "$archives" ]] || "$TESTBED/bed" load $archives "$bed"
  forget_killed_helm
  # Tests run servers of their own on this machine; a namespace has their authority in a ConfigMap, or has not.
  step "install the chart" install_blobferry localhost/blobferry-operator:dev localhost/blobferry-uploader:dev \
    "$BED_ADDRESS,$BED_HOST_ADDRESS" --set uploaders.authoritiesConfigMap=authorities "${@:3}"
  if [[ -e $loaded && $(<"$loaded") != "$archives" ]]; then step "restart with the new images" restart_everything; fi
  printf '%s\n' "$archives" >"$loaded"
}

# forget_killed_helm: an upgrade that was killed with its run would keep every later one from starting.
forget_killed_helm() {
  kubectl --namespace "$RELEASE_NAMESPACE" delete secrets --ignore-not-found \
    --selector "owner=helm,name=$RELEASE,status in (pending-install, pending-upgrade, pending-rollback, uninstalling)"
}

restart_everything() {
  kubectl --namespace "$RELEASE_NAMESPACE" rollout restart deployment
  kubectl --namespace "$RELEASE_NAMESPACE" rollout status deployment --timeout=5m
  kubectl delete pods --all-namespaces --selector app.kubernetes.io/name=blobferry-uploader
}
