# shellcheck shell=bash
# The programs as they are released: optimised and static, so that an image
# needs nothing beside them. The first stage of the Dockerfiles does the same.

# release_target: this machine's own, named, because a static build needs it named.
release_target() { rustc -vV | sed -n 's/^host: //p'; }

# release_folder: where `build_release` leaves programs.
release_folder() {
  printf '%s/%s/release\n' "$(cargo metadata --manifest-path "$REPOSITORY/Cargo.toml" --format-version 1 --no-deps --locked |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')" "$(release_target)"
}

# build_release: what goes into images, and the tool of the demonstration. Always
# together: apart, cargo chooses other features and compiles much of it twice.
build_release() {
  cd "$REPOSITORY" || return
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$(release_target)" \
    --package blobferry-operator --package blobferry-uploader --package blobferry-testbed --package blobferry-trials
}
