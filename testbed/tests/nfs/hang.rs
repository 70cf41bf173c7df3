//! From when on a call of an uploader hangs, as its node's kernel shows it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use blobferry_testbed::Machine;
use tokio::time::Instant;

/// Looks ten times a second whether a thread of an uploader waits in the kernel (state D of proc(5)), and prints for how long one has
/// without a look that found none, in microseconds, once that is 3 s.
const WATCH: &str = r#"
threads=$(printf '/proc/%s/task/*/stat ' $(pidof blobferry-uploader))
since=0
for _ in {1..600}; do
  waits=
  for thread in $threads; do
    read -r line <"$thread" && [[ $line == *') D '* ]] && waits=yes
  done 2>/dev/null
  now=${EPOCHREALTIME/./}
  if [[ -z $waits ]]; then since=0
  elif ((since == 0)); then since=$now
  elif ((now - since > 3000000)); then echo $((now - since)); exit
  fi
  sleep 0.1
done
exit 1
"#;

/// When the first call began that hangs; started before it does, this returns some seconds later.
pub(crate) async fn first_hung_call(node: &Machine) -> Result<Instant> {
    let waited = node.run(WATCH).await.context("no call hangs")?;
    let waited = Duration::from_micros(waited.trim().parse()?);
    Instant::now().checked_sub(waited).context("the clock began later")
}
