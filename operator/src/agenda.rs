//! (pure) When each session is looked at next, and which are being looked at.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::place::Place;

/// A look that takes longer is slow: most likely a webhook does not answer.
pub const SLOW_AFTER: Duration = Duration::from_secs(2);
/// Sessions of a namespace that are looked at slowly at a time, so that those of other namespaces come to their looks.
pub const SLOW_OF_ONE_NAMESPACE: usize = 32;

/// Sessions in the order of their next looks. A session has one next look, and is never looked at by two at a time.
#[derive(Debug, Default)]
pub struct Agenda {
    next: HashMap<Place, Instant>,
    order: BTreeSet<(Instant, Place)>,
    /// Those that are being looked at, and since when; what happens to them meanwhile waits.
    busy: HashMap<Place, Instant>,
}

impl Agenda {
    /// `session` is to be looked at at `due`, unless it is sooner anyway.
    pub fn add(&mut self, session: Place, due: Instant) {
        if let Some(earlier) = self.next.get(&session).copied() {
            if earlier <= due {
                return;
            }
            self.order.remove(&(earlier, session.clone()));
        }
        self.next.insert(session.clone(), due);
        self.order.insert((due, session));
    }

    /// A session that is due at `now`, longest due first; it is busy until it is [done](Self::done).
    pub fn begin(&mut self, now: Instant) -> Option<Place> {
        let (due, session) = self.first_free(now).filter(|(due, _)| *due <= now)?.clone();
        self.next.remove(&session);
        self.order.remove(&(due, session.clone()));
        self.busy.insert(session.clone(), now);
        Some(session)
    }

    /// `session` is not looked at any more.
    pub fn done(&mut self, session: &Place) {
        self.busy.remove(session);
    }

    /// When the next look can begin, as far as it is known at `now`.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.first_free(now).map(|(due, _)| *due)
    }

    fn first_free(&self, now: Instant) -> Option<&(Instant, Place)> {
        let crowded = self.crowded(now);
        let is_free = |session: &Place| !self.busy.contains_key(session) && !crowded.contains(&session.namespace());
        self.order.iter().find(|(_, session)| is_free(session))
    }

    /// Namespaces of which so many sessions are looked at slowly that no further one is.
    fn crowded(&self, now: Instant) -> Vec<&str> {
        let slow = self.busy.iter().filter(|(_, begun)| **begun + SLOW_AFTER <= now);
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (session, _) in slow {
            *counts.entry(session.namespace()).or_default() += 1;
        }
        counts.retain(|_, count| *count >= SLOW_OF_ONE_NAMESPACE);
        counts.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(name: &str) -> Place {
        Place::new("cameras", name)
    }

    fn begun(agenda: &mut Agenda, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| agenda.begin(now)).map(|session| session.name().to_owned()).collect()
    }

    #[test]
    fn sessions_are_looked_at_when_they_are_due_and_the_longest_due_first() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for (name, seconds) in [("late", 9), ("third", 3), ("first", 1), ("second", 2)] {
            agenda.add(place(name), now + Duration::from_secs(seconds));
        }
        assert_eq!(agenda.begin(now), None);
        assert_eq!(agenda.due(now), Some(now + Duration::from_secs(1)));
        assert_eq!(begun(&mut agenda, now + Duration::from_secs(3)), ["first", "second", "third"]);
        assert_eq!(agenda.due(now), Some(now + Duration::from_secs(9)));
    }

    #[test]
    fn of_two_times_for_one_session_the_sooner_one_counts() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for seconds in [5, 1, 3] {
            agenda.add(place("a"), now + Duration::from_secs(seconds));
        }
        assert_eq!(begun(&mut agenda, now + Duration::from_secs(1)), ["a"]);
        agenda.done(&place("a"));
        assert_eq!((agenda.due(now), agenda.order.len()), (None, 0));
    }

    #[test]
    fn what_happens_to_a_session_that_is_being_looked_at_is_looked_at_afterwards() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.add(place("a"), now);
        assert_eq!(begun(&mut agenda, now), ["a"]);
        agenda.add(place("a"), now);
        agenda.add(place("b"), now);
        assert_eq!(begun(&mut agenda, now), ["b"]);
        assert_eq!(agenda.due(now), None, "nothing can begin before one of them is done");
        agenda.done(&place("a"));
        assert_eq!(begun(&mut agenda, now), ["a"]);
    }

    #[test]
    fn namespace_whose_looks_are_slow_leaves_room_for_others() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let names: Vec<_> = (0..=SLOW_OF_ONE_NAMESPACE).map(|number| format!("{number:02}")).collect();
        for name in &names {
            agenda.add(place(name), now);
        }
        agenda.add(Place::new("robots", "free"), now + SLOW_AFTER);
        for name in &names[..SLOW_OF_ONE_NAMESPACE] {
            assert_eq!(agenda.begin(now), Some(place(name)));
        }
        assert_eq!(agenda.due(now), Some(now), "none of them is slow yet");
        let later = now + SLOW_AFTER;
        assert_eq!(begun(&mut agenda, later), ["free"]);
        assert_eq!(agenda.due(later), None);
        agenda.done(&place(&names[7]));
        assert_eq!(begun(&mut agenda, later), names[SLOW_OF_ONE_NAMESPACE..]);
    }
}
