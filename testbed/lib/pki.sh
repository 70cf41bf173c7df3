# shellcheck shell=bash
# Keys, certificates and kubeconfigs of one bed. They live as long as the bed.

# create_pki: everything the components of a bed need to trust each other.
create_pki() {
  mkdir -p "$BED_DIR/pki"
  new_key ca
  openssl req -x509 -new -key "$(key_of ca)" -subj "/CN=blobferry-bed-$BED_NAME" -days 3650 -out "$(certificate_of ca)" 2>&1
  new_signing_key service-account
  openssl pkey -in "$(key_of service-account)" -pubout -out "$BED_DIR/pki/service-account.pub"

  issue kube-apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$API_SERVICE_ADDRESS,IP:$BED_ADDRESS"
  issue kubelet-client /O=system:masters/CN=kube-apiserver
  issue_client admin /O=system:masters/CN=admin
  issue_client kube-controller-manager /O=system:masters/CN=system:kube-controller-manager
  issue_client kube-scheduler /CN=system:kube-scheduler
  issue_client kube-proxy /CN=system:kube-proxy
  issue_client kubelet "/O=system:nodes/CN=system:node:$BED_NODE" "DNS:$BED_NODE,IP:$BED_ADDRESS"
}

key_of() { printf '%s\n' "$BED_DIR/pki/$1.key"; }
certificate_of() { printf '%s\n' "$BED_DIR/pki/$1.crt"; }

new_key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$(key_of "$1")" 2>&1); }

# Microsoft Entra takes no other signatures than those of RSA; k3s signs so too.
new_signing_key() { (umask 077 && openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$(key_of "$1")" 2>&1); }

# issue NAME SUBJECT [SUBJECT-ALT-NAMES]: a certificate signed by the bed's own authority.
issue() {
  local name=$1 subject=$2 alternatives=${3:-DNS:$1}
  new_key "$name"
  openssl req -new -key "$(key_of "$name")" -subj "$subject" |
    openssl x509 -req -CA "$(certificate_of ca)" -CAkey "$(key_of ca)" -days 3650 -out "$(certificate_of "$name")" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$alternatives") 2>&1
}

# issue_client NAME SUBJECT [SUBJECT-ALT-NAMES]: the same, with a kubeconfig that uses it.
issue_client() {
  issue "$@"
  write_kubeconfig "$1" >"$BED_DIR/$1.kubeconfig"
}

write_kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
current-context: blobferry-$BED_NAME
clusters:
  - name: blobferry-$BED_NAME
    cluster:
      server: https://$BED_ADDRESS:6443
      certificate-authority-data: $(base64 -w0 "$(certificate_of ca)")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$(certificate_of "$1")")
      client-key-data: $(base64 -w0 "$(key_of "$1")")
contexts:
  - name: blobferry-$BED_NAME
    context:
      cluster: blobferry-$BED_NAME
      user: $1
YAML
}
