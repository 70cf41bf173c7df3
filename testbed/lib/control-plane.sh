# shellcheck shell=bash
# etcd, the API server and the controllers. These functions run inside the bed.

# start_api: etcd and the API server; ready when requests are answered.
start_api() {
  # The data is gone with the bed, so nothing has to survive a power cut.
  launch etcd etcd --name "$BED_NAME" --data-dir "$BED_DIR/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$BED_NAME=http://127.0.0.1:2380"
  launch kube-apiserver run_again kube-apiserver kube-apiserver \
    --etcd-servers http://127.0.0.1:2379 \
    --bind-address 0.0.0.0 --secure-port 6443 --advertise-address "$BED_ADDRESS" \
    --service-cluster-ip-range "$SERVICE_NETWORK" \
    --tls-cert-file "$(certificate_of kube-apiserver)" --tls-private-key-file "$(key_of kube-apiserver)" \
    --client-ca-file "$(certificate_of ca)" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction,OwnerReferencesPermissionEnforcement --allow-privileged \
    --service-account-issuer "https://$BED_ADDRESS:6443" \
    --service-account-key-file "$BED_DIR/pki/service-account.pub" \
    --service-account-signing-key-file "$(key_of service-account)" \
    --kubelet-client-certificate "$(certificate_of kubelet-client)" --kubelet-client-key "$(key_of kubelet-client)" \
    --kubelet-certificate-authority "$(certificate_of ca)" --kubelet-preferred-address-types InternalIP
  await 180 "the API server" api_is_ready
}

api_is_ready() { curl --silent --fail --cacert "$(certificate_of ca)" --noproxy '*' "https://$BED_ADDRESS:6443/readyz"; }

# start_controllers MODE: among them those for service accounts, namespaces and garbage.
# A claim that is looked at before its volume waits for the next round, else 15 s.
start_controllers() {
  local -a more=()
  # Without a node, a test plays the kubelets, and they have no heartbeat.
  if [[ $1 == control-plane ]]; then more=(--node-monitor-grace-period 1h); fi
  launch kube-controller-manager kube-controller-manager \
    --kubeconfig "$BED_DIR/kube-controller-manager.kubeconfig" --leader-elect=false --bind-address 127.0.0.1 \
    --pvclaimbinder-sync-period 1s "${more[@]}" \
    --root-ca-file "$(certificate_of ca)" --service-account-private-key-file "$(key_of service-account)"
}

# A pod created before this is refused.
await_service_accounts() {
  await 180 "the default service account" admin_kubectl get serviceaccount default --namespace default
}

admin_kubectl() { kubectl --kubeconfig "$BED_KUBECONFIG" "$@"; }
