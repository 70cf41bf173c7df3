//! (pure) When each session is looked at next, and which are being looked at.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio::time::Instant;

use crate::place::Place;

/// Sessions in the order of their next looks. A session has one next look, and is never looked at by two at a time.
#[derive(Debug, Default)]
pub struct Agenda {
    next: HashMap<Place, Instant>,
    order: BTreeSet<(Instant, Place)>,
    /// Those that are being looked at; what happens to them meanwhile waits.
    busy: HashSet<Place>,
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
        let (due, session) = self.first_free().filter(|(due, _)| *due <= now)?.clone();
        self.next.remove(&session);
        self.order.remove(&(due, session.clone()));
        self.busy.insert(session.clone());
        Some(session)
    }

    /// `session` is not looked at any more.
    pub fn done(&mut self, session: &Place) {
        self.busy.remove(session);
    }

    /// When the next look can begin.
    pub fn due(&self) -> Option<Instant> {
        self.first_free().map(|(due, _)| *due)
    }

    fn first_free(&self) -> Option<&(Instant, Place)> {
        self.order.iter().find(|(_, session)| !self.busy.contains(session))
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
        assert_eq!(agenda.due(), Some(now + Duration::from_secs(1)));
        assert_eq!(begun(&mut agenda, now + Duration::from_secs(3)), ["first", "second", "third"]);
        assert_eq!(agenda.due(), Some(now + Duration::from_secs(9)));
    }

    #[test]
    fn of_two_times_for_one_session_the_sooner_one_counts() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for seconds in [5, 1, 3] {
            agenda.add(place("a"), now + Duration::from_secs(seconds));
        }
        assert_eq!(begun(&mut agenda, now + Duration::from_secs(1)), ["a"]);
        agenda.done(&place("a"));
        assert_eq!((agenda.due(), agenda.order.len()), (None, 0));
    }

    #[test]
    fn what_happens_to_a_session_that_is_being_looked_at_is_looked_at_afterwards() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.add(place("a"), now);
        assert_eq!(begun(&mut agenda, now), ["a"]);
        agenda.add(place("a"), now);
        agenda.add(place("b"), now);
        assert_eq!(begun(&mut agenda, now), ["b"]);
        assert_eq!(agenda.due(), None, "nothing can begin before one of them is done");
        agenda.done(&place("a"));
        assert_eq!(begun(&mut agenda, now), ["a"]);
    }
}
