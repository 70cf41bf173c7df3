//! (pure) Many that work in folders, or want to: those whose folders meet are found without a look at all the others.
//!
//! They are kept in the order of their folders, in which a folder comes right before all that is below it. Whatever is in a folder or
//! below it stands together then, and what is above it is found by the names of its parents.

use std::{
    cmp::Ordering::{self, Equal, Less},
    sync::Arc,
};

use super::{Area, Folder, ShareKey};
use crate::settings::components;

/// What may have to do with folders.
pub trait InArea {
    /// The folders, which never change; none if there are none.
    fn area(&self) -> Option<&Area>;
}

/// Those that have to do with folders; others are not kept.
#[derive(Debug)]
pub struct Index<T> {
    by_incoming: Sorted<T>,
    by_processing: Sorted<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        let sorted = |folder| Sorted { all: Vec::new(), folder };
        Self { by_incoming: sorted(|area| &area.incoming), by_processing: sorted(|area| &area.processing) }
    }
}

impl<T: InArea> Index<T> {
    /// `it` is there.
    pub fn add(&mut self, it: &Arc<T>) {
        self.by_incoming.add(it);
        self.by_processing.add(it);
    }

    /// `it`, which was there, is not any more.
    pub fn remove(&mut self, it: &Arc<T>) {
        self.by_incoming.remove(it);
        self.by_processing.remove(it);
    }

    /// `new` is there instead of `old`.
    pub fn replace(&mut self, old: &Arc<T>, new: &Arc<T>) {
        if old.area() == new.area() {
            self.by_incoming.exchange(old, new);
            self.by_processing.exchange(old, new);
        } else {
            self.remove(old);
            self.add(new);
        }
    }

    /// Whether somebody has to do with `share`.
    pub fn has(&self, share: &ShareKey) -> bool {
        !self.by_incoming.on(share).all.is_empty()
    }

    /// Those on `share` whose folders meet the ones of `wanted`, on the share of which the root of `share` is the folder `root`.
    pub fn meeting(&self, share: &ShareKey, root: &str, wanted: &Area) -> Vec<&Arc<T>> {
        let (by_incoming, by_processing) = (self.by_incoming.on(share), self.by_processing.on(share));
        let reaches = [&wanted.incoming, &wanted.processing].map(|folder| Reach::of(folder, root));
        let [incoming, processing] = match reaches {
            [Reach::All, _] | [_, Reach::All] => return by_incoming.all.iter().collect(),
            reaches => reaches.map(Reach::folder),
        };
        let mut found = Vec::new();
        for folder in [&incoming, &processing].into_iter().flatten() {
            by_incoming.add_above(folder, &mut found);
            by_incoming.add_within(folder, &mut found);
        }
        if let Some(folder) = &incoming {
            by_processing.add_above(folder, &mut found);
            by_processing.add_within(folder, &mut found);
        }
        if let Some(folder) = &processing {
            by_processing.add_above(folder, &mut found);
            by_processing.add_at(folder, &wanted.session, &mut found);
            by_processing.add_below(folder, &mut found);
        }
        found.sort_unstable_by_key(|it| Arc::as_ptr(it));
        found.dedup_by(|one, two| Arc::ptr_eq(one, two));
        found
    }
}

/// All in the order of their shares, of one of their folders there, and of their sessions' names.
#[derive(Debug)]
struct Sorted<T> {
    all: Vec<Arc<T>>,
    folder: fn(&Area) -> &Folder,
}

impl<T: InArea> Sorted<T> {
    fn add(&mut self, it: &Arc<T>) {
        if let Some(area) = it.area() {
            self.all.insert(self.first(area), Arc::clone(it));
        }
    }

    fn remove(&mut self, it: &Arc<T>) {
        if let Some(position) = self.position(it) {
            self.all.remove(position);
        }
    }

    /// Puts `new`, whose folders are the same, in the place of `old`.
    fn exchange(&mut self, old: &Arc<T>, new: &Arc<T>) {
        if let Some(position) = self.position(old) {
            self.all[position] = Arc::clone(new);
        }
    }

    fn position(&self, it: &Arc<T>) -> Option<usize> {
        let first = self.first(it.area()?);
        let after = self.all[first..].iter().position(|other| Arc::ptr_eq(other, it))?;
        Some(first + after)
    }

    /// The first place for `area`.
    fn first(&self, area: &Area) -> usize {
        let folder = self.folder;
        first(&self.all, |other| {
            let by_share = other.share.cmp(&area.share);
            by_share.then_with(|| folder(other).parts().cmp(folder(area).parts())).then_with(|| other.session.cmp(&area.session))
        })
    }

    fn on(&self, share: &ShareKey) -> OnShare<'_, T> {
        let rest = &self.all[first(&self.all, |area| area.share.cmp(share))..];
        let end = first(rest, |area| area.share.cmp(share).then(Less));
        OnShare { all: &rest[..end], folder: self.folder }
    }
}

/// Those of one share, in the order of one of their folders and of their sessions' names.
struct OnShare<'a, T> {
    all: &'a [Arc<T>],
    folder: fn(&Area) -> &Folder,
}

impl<'a, T: InArea> OnShare<'a, T> {
    /// Adds those in a folder that `folder` is below.
    fn add_above(&self, folder: &[&str], found: &mut Vec<&'a Arc<T>>) {
        for depth in 0..folder.len() {
            self.add(found, |area| self.parts(area).cmp(folder[..depth].iter().copied()));
        }
    }

    /// Adds those in `folder` whose session has the name `session`.
    fn add_at(&self, folder: &[&str], session: &str, found: &mut Vec<&'a Arc<T>>) {
        self.add(found, |area| self.parts(area).cmp(folder.iter().copied()).then_with(|| area.session.as_str().cmp(session)));
    }

    /// Adds those in `folder`, or below it.
    fn add_within(&self, folder: &[&str], found: &mut Vec<&'a Arc<T>>) {
        self.add(found, |area| self.beginning(area, folder));
    }

    /// Adds those below `folder`.
    fn add_below(&self, folder: &[&str], found: &mut Vec<&'a Arc<T>>) {
        let is_at = |area: &Area| self.parts(area).nth(folder.len()).is_none();
        self.add(found, |area| self.beginning(area, folder).then_with(|| if is_at(area) { Less } else { Equal }));
    }

    fn parts<'b>(&self, area: &'b Area) -> impl Iterator<Item = &'b str> {
        (self.folder)(area).parts()
    }

    /// Compares as much of the folder as is as deep as `folder`.
    fn beginning(&self, area: &Area, folder: &[&str]) -> Ordering {
        self.parts(area).take(folder.len()).cmp(folder.iter().copied())
    }

    fn add(&self, found: &mut Vec<&'a Arc<T>>, order: impl Fn(&Area) -> Ordering) {
        let rest = &self.all[first(self.all, &order)..];
        found.extend(rest.iter().take_while(|it| it.area().is_some_and(|area| order(area) == Equal)));
    }
}

/// The first of `sorted` that does not come before what `order` compares with.
fn first<T: InArea>(sorted: &[Arc<T>], order: impl Fn(&Area) -> Ordering) -> usize {
    sorted.partition_point(|it| it.area().is_some_and(|area| order(area) == Less))
}

/// How far a folder reaches into a share.
enum Reach<'a> {
    /// It is above the root of the share.
    All,
    /// It is this folder of the share.
    Folder(Vec<&'a str>),
    /// It is elsewhere.
    Nothing,
}

impl<'a> Reach<'a> {
    /// That of `folder` into a share whose root is `root`.
    fn of(folder: &'a Folder, root: &str) -> Self {
        let mut parts = folder.parts();
        for component in components(root) {
            match parts.next() {
                None => return Self::All,
                Some(part) if part != component => return Self::Nothing,
                Some(_) => {}
            }
        }
        Self::Folder(parts.collect())
    }

    fn folder(self) -> Option<Vec<&'a str>> {
        match self {
            Self::Folder(parts) => Some(parts),
            Self::All | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    impl InArea for Option<Area> {
        fn area(&self) -> Option<&Area> {
            self.as_ref()
        }
    }

    /// One of few, so that many meet.
    fn any<'a>(random: &mut StdRng, choices: &[&'a str]) -> &'a str {
        choices[random.random_range(0..choices.len())]
    }

    fn any_folder(random: &mut StdRng) -> &'static str {
        any(random, &["in", "in/a", "in/a/b", "in-a", "in/ab", ".p", ".p/a", ".p/a/b", ".", "a"])
    }

    fn any_area(random: &mut StdRng) -> Area {
        let share = match random.random_range(0..3) {
            0 => ShareKey::Server("nas".into()),
            number => ShareKey::Claim("cameras".into(), format!("share-{number}")),
        };
        let root = any(random, &["", "/srv", "/srv/in"]);
        Area::new(share, root, any_folder(random), any_folder(random), any(random, &["a", "b", "in"]))
    }

    fn sorted<'a>(found: impl IntoIterator<Item = &'a Arc<Option<Area>>>) -> Vec<*const Option<Area>> {
        let mut found: Vec<_> = found.into_iter().map(Arc::as_ptr).collect();
        found.sort_unstable();
        found
    }

    /// A walk through which many come, change and go; what is there is compared with the index at each step.
    fn walk(seed: u64) {
        let random = &mut StdRng::seed_from_u64(seed);
        let (mut index, mut all) = (Index::default(), Vec::<Arc<Option<Area>>>::new());
        for step in 0..300 {
            let new = Arc::new(random.random_bool(0.9).then(|| any_area(random)));
            let chosen = random.random_range(0..=all.len());
            match random.random_range(0..3) {
                0 if chosen < all.len() => index.remove(&all.swap_remove(chosen)),
                1 if chosen < all.len() => {
                    let new = if random.random_bool(0.5) { new } else { Arc::new(Option::clone(&all[chosen])) };
                    index.replace(&std::mem::replace(&mut all[chosen], Arc::clone(&new)), &new);
                }
                _ => {
                    index.add(&new);
                    all.push(new);
                }
            }
            let (wanted, root) = (any_area(random), any(random, &["", "srv", "srv/in", "srv/in/a", "in"]));
            let share = any_area(random).share;
            let meets =
                |it: &&Arc<Option<Area>>| it.area().is_some_and(|area| area.share == share && area.meets_from(root, &wanted));
            let met = sorted(all.iter().filter(meets));
            assert_eq!(
                sorted(index.meeting(&share, root, &wanted)),
                met,
                "seed {seed}, step {step}: {wanted:?} and {share:?} at {root}"
            );
        }
    }

    #[test]
    fn exactly_those_whose_folders_meet_are_found() {
        (0..100).for_each(walk);
    }
}
