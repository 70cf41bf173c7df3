//! What may become a version of a blob.

use blobferry_uploader::{
    blob::Properties,
    formats::{BlobName, BlobOrigin, ClaimId},
};
use bytes::Bytes;

use super::{Look, Oracle, Version};
use crate::server::Node;

/// What a process knew when it sent a commit.
#[derive(Clone, Debug)]
pub struct Intent {
    claim: ClaimId,
    look: Option<(Node, Look)>,
}

impl Oracle {
    /// A process sends a commit; what it looked at last counts.
    pub fn intends(&mut self, life: u32, properties: &Properties) -> Option<Intent> {
        let Some(origin) = BlobOrigin::parse(&properties.metadata) else {
            self.violated("a commit does not say where its file came from");
            return None;
        };
        let node = self.claims.get(&origin.claim).map(|claim| claim.node);
        let look = node.and_then(|node| Some((node, *self.looks.get(&(life, node))?)));
        if let Some((_, look)) = look.filter(|(_, look)| look.since.elapsed() < self.quiet) {
            let seen = look.since.elapsed().as_millis();
            self.violated(format!("{} is committed though its content was seen for {seen} ms only", origin.claim));
        }
        Some(Intent { claim: origin.claim, look })
    }

    /// A commit was applied, however late: `blob` shows `content` now.
    pub fn committed(&mut self, blob: &BlobName, intent: &Intent, content: Bytes) {
        self.commits += 1;
        let at = self.tick();
        let Intent { claim, look } = intent;
        let Some((node, look)) = *look else {
            return self.violated(format!("{blob} was committed for {claim}, which nobody looked at"));
        };
        let Some((generation, known)) = self.generation(node, claim, &content) else {
            return self.violated(format!("{blob} shows content that its file never had: {claim}"));
        };
        let producer = known;
        let version = Version { at, claim: *claim, node, producer, content, generation, changed: look.changed };
        self.judge(blob, &version);
        self.blobs.entry(blob.clone()).or_default().versions.push(version);
        if let Some(truth) = self.files.get_mut(&node) {
            truth.committed = true;
        }
    }

    /// Since when the claimed file has had this content: the whole of it at one moment after the claim, or it is mixed.
    fn generation(&self, node: Node, claim: &ClaimId, content: &Bytes) -> Option<((u64, u64), Vec<u8>)> {
        let claim = self.claims.get(claim)?;
        let truth = self.files.get(&node)?;
        let mut end = u64::MAX;
        let (mut found, last) = (None, truth.contents.len() - 1);
        for (index, (from, had)) in truth.contents.iter().enumerate().rev() {
            if had == content && end > claim.at {
                // A touch makes what is there newer.
                found = Some(if index == last { truth.changed } else { *from });
                break;
            }
            end = *from;
        }
        found.map(|from| ((claim.arrived, from), claim.producer.clone()))
    }

    fn judge(&mut self, blob: &BlobName, version: &Version) {
        let Some(known) = self.blobs.get(blob) else { return };
        let since = known.disturbed;
        let earlier = known.versions.iter().filter(|earlier| earlier.at > since);
        let mut wrong = None;
        for earlier in earlier {
            if earlier.claim == version.claim {
                wrong = Some(format!("{blob} was committed twice for {}", version.claim));
            } else if earlier.node == version.node && earlier.changed == version.changed && !self.was_released(&earlier.claim) {
                wrong = Some(format!("{blob}: one generation was committed under {} and {}", earlier.claim, version.claim));
            } else if earlier.generation > version.generation && !(self.clock_stepped && self.is_shared) {
                wrong = Some(format!("{blob} went back from {} to the earlier {}", earlier.claim, version.claim));
            }
        }
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
    }
}
