//! What a client asks its server, as its kernel counts it: `/proc/self/mountstats`, see nfsiostat(8).

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};

use crate::export::{Export, SERVER};

/// Remote procedure calls by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(BTreeMap<String, u64>);

/// Of the export, since the node mounted it. Mounts of the same path are counted together.
pub(crate) async fn calls(export: &Export<'_>) -> Result<Calls> {
    let device = format!("device {SERVER}:{} ", export.path);
    let text = export.node.run("cat /proc/self/mountstats").await?;
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&device));
    lines.next().with_context(|| format!("the node has not mounted {device}"))?;
    let operations = lines.skip_while(|line| line.trim() != "per-op statistics").skip(1);
    let counts = operations.take_while(|line| !line.starts_with("device ")).filter_map(|line| {
        let (name, numbers) = line.trim().split_once(": ")?;
        Some((name.to_owned(), numbers.split_whitespace().next()?.parse().ok()?))
    });
    Ok(Calls(counts.filter(|(_, count)| *count > 0).collect()))
}

impl Calls {
    /// What came after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let counts = self.0.iter().map(|(name, count)| (name.clone(), count.saturating_sub(earlier.of(name))));
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// So many times as many.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "small numbers")]
    pub(crate) fn scaled(&self, times: f64) -> Self {
        Self(self.0.iter().map(|(name, count)| (name.clone(), (*count as f64 * times).round() as u64)).collect())
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those by which a client learns of one file.
    pub(crate) fn for_attributes(&self) -> u64 {
        ["GETATTR", "LOOKUP", "ACCESS"].iter().map(|name| self.of(name)).sum()
    }

    /// The most frequent ones first.
    pub(crate) fn describe(&self) -> String {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        counts.into_iter().fold(String::new(), |mut text, (name, count)| {
            let _ = write!(text, "{}{name} {count}", if text.is_empty() { "" } else { ", " });
            text
        })
    }
}
