# shellcheck shell=bash
# The blob emulator. It runs inside the bed and listens on the bed's address,
# so that pods and the host name it by the same URL.

# Azurite's only account, and the key that its documentation publishes.
AZURITE_PORT=10000
AZURITE_ACCOUNT=devstoreaccount1
# shellcheck disable=SC2034 # lifecycle.sh prints it
AZURITE_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==

# start_azurite FOLDER: where it is installed. Its log of requests tells tests how often a blob was committed.
start_azurite() {
  launch azurite node "$1/node_modules/azurite/dist/src/blob/main.js" \
    --blobHost 0.0.0.0 --blobPort "$AZURITE_PORT" --location "$BED_DIR/azurite" --disableTelemetry
}

# Any answer will do: without a key it is a refusal.
await_azurite() {
  await 180 Azurite curl --silent --output /dev/null --noproxy '*' "$(azurite_account_url)"
}

azurite_account_url() { printf 'http://%s:%s/%s\n' "$BED_ADDRESS" "$AZURITE_PORT" "$AZURITE_ACCOUNT"; }
