//! (pure) A map whose values may have folders, and are found by those as well.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Values},
    hash::Hash,
    sync::Arc,
};

use super::{
    Area,
    index::{InArea, Index},
};

/// Values by key, and by their folders.
#[derive(Debug)]
pub struct AreaMap<K, T> {
    values: HashMap<K, Arc<T>>,
    by_area: Index<T>,
}

impl<K, T> Default for AreaMap<K, T> {
    fn default() -> Self {
        Self { values: HashMap::new(), by_area: Index::default() }
    }
}

impl<K: Eq + Hash, T: InArea> AreaMap<K, T> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&Arc<T>> {
        self.values.get(key)
    }

    /// All values.
    pub fn values(&self) -> Values<'_, K, Arc<T>> {
        self.values.values()
    }

    /// The values whose folders overlap `area`.
    pub fn overlapping(&self, area: &Area) -> Vec<&Arc<T>> {
        self.by_area.meeting(&area.share, "", area)
    }

    /// Gives `key` the value `new`; the one that it had.
    pub fn insert(&mut self, key: K, new: &Arc<T>) -> Option<Arc<T>> {
        let old = self.values.insert(key, Arc::clone(new));
        match &old {
            Some(old) => self.by_area.replace(old, new),
            None => self.by_area.add(new),
        }
        old
    }

    /// Removes the value of `key`.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.values.remove(key) {
            self.by_area.remove(&value);
        }
    }

    /// Removes the values of all keys that are not to `stay`, and returns them.
    pub fn retain(&mut self, stay: impl Fn(&K) -> bool) -> Vec<Arc<T>> {
        let gone: Vec<_> = self.values.extract_if(|key, _| !stay(key)).map(|(_, value)| value).collect();
        for value in &gone {
            self.by_area.remove(value);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::decisions::area::ShareKey;

    fn any_area(random: &mut StdRng) -> Area {
        let share = ShareKey::Claim("cameras".into(), format!("share-{}", random.random_range(0..2)));
        let mut folder = || ["in", "in/a", ".p"][random.random_range(0..3)];
        let (incoming, processing) = (folder(), folder());
        Area::new(share, "", incoming, processing, ["a", "b"][random.random_range(0..2)])
    }

    #[test]
    fn values_are_found_by_their_folders_whatever_came_changed_and_went() {
        let random = &mut StdRng::seed_from_u64(1);
        let mut map = AreaMap::default();
        for step in 0..3000 {
            let key = random.random_range(0..9);
            match random.random_range(0..20) {
                0 => {
                    map.retain(|other| *other < key);
                }
                1..5 => map.remove(&key),
                _ => drop(map.insert(key, &Arc::new(random.random_bool(0.9).then(|| any_area(random))))),
            }
            let wanted = any_area(random);
            let mut met: Vec<_> = map.values().filter(|it| it.area().is_some_and(|area| area.overlaps(&wanted))).collect();
            met.sort_by_key(|it| Arc::as_ptr(it));
            assert_eq!(map.overlapping(&wanted), met, "step {step}");
        }
    }
}
