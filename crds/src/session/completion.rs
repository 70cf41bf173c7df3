//! `spec.completion`: when a session is over by itself.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::TextDuration;

/// When a session is over by itself.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completion {
    /// The session becomes Completed once everything is uploaded and nothing new came for so long, 10s to 8760h. Files that are set aside,
    /// superseded, ignored or cannot be taken do not keep it from that; they are named in the condition Complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TextDuration")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s') && duration(self) <= duration('8760h')").message("idleTimeout is a duration from 10s to 8760h, like 10m"))]
    pub idle_timeout: Option<TextDuration>,
}
