//! Whether new files are claimed while the container takes none. (pure)
//!
//! Without it an outage of days would claim the whole incoming folder: each claim is remembered and tried again on its own.

/// On while attempts fail for the container's sake; then one new file at a time is tried, each time that the container has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brake {
    is_on: bool,
    probe: bool,
}

impl Brake {
    /// An attempt failed for the container's sake.
    pub fn fails(&mut self) {
        *self = Self { is_on: true, probe: false };
    }

    /// The container answered; whether it takes files is for one of them to say.
    pub fn answers(&mut self) {
        self.probe = self.is_on;
    }

    /// The container took a file, or no file waits for it.
    pub fn works(&mut self) {
        *self = Self::default();
    }

    /// True if a new file may be claimed.
    pub fn admits(self) -> bool {
        !self.is_on || self.probe
    }

    /// A new file is being claimed.
    pub fn admitted(&mut self) {
        self.probe = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_container_fails_one_file_is_tried_each_time_that_it_answers() {
        let mut brake = Brake::default();
        brake.answers();
        brake.admitted();
        assert!(brake.admits(), "nothing failed");
        brake.fails();
        assert!(!brake.admits());
        brake.answers();
        assert!(brake.admits());
        brake.admitted();
        assert!(!brake.admits(), "one is enough");
        brake.works();
        assert!(brake.admits());
    }
}
