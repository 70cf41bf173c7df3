//! (pure) Who gets a new image, and how far each session is with it.

pub mod choice;
pub mod progress;

/// What a session's pod has to do with a new image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: it has the image that is wanted.
    #[default]
    None,
    /// It runs another image until its turn comes.
    Pending {
        /// The session of the same namespace that holds up the rollout, if one does.
        behind: Option<String>,
    },
    /// It is replaced now.
    Turn,
}

/// What a session says whose pod `replaced` is followed by one that is on trial with `image`, if the session, which has this `uid`, has
/// this `generation` then.
pub fn mark(uid: &str, replaced: &str, generation: i64, image: &str) -> String {
    format!("{uid} {replaced} {generation} {image}")
}
