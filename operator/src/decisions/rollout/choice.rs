//! (pure) Who gets a new image next.
//!
//! Sessions that are well get it on trial: no more than the installation allows are on trial at a time, and one whose uploader does not
//! become well stays so. While nobody is well, as in an outage, as many that run nevertheless get it: their uploaders have to run again.
//! Those that do not run have little to lose and prove nothing: they get it a few at a time while the image is not in doubt, and hold up
//! nobody. Those that are down have nothing to lose, and get it in any case: it may be an earlier one that worked for them.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use jiff::Timestamp;

use super::progress::{Health, State};
use crate::place::Place;

/// A turn of which nothing was seen for this time goes to somebody else: its pod does not end, or the next one does not come.
const TURN: Duration = Duration::from_mins(5);

/// Whoever is on trial for longer than a start takes holds up the others.
const TRIAL: Duration = Duration::from_mins(5);

/// Sessions that are not well get the image so many at a time.
const UNWELL_AT_A_TIME: usize = 10;

/// Whose turn it is or was.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// By UID of the session; those that ended in vain are remembered.
    turns: HashMap<String, Turn>,
    /// Sessions that have worked with the new image for long, by UID: what happens to them later is not blamed on it.
    proven: HashMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Turn {
    place: Place,
    /// Of the session when it got the turn.
    generation: i64,
    began: Timestamp,
    /// When it was given, or its session was last seen on trial.
    seen: Timestamp,
    before: Before,
}

/// How a session fared before its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// It was well, and has to become so again: it is on trial.
    Well,
    /// It was not, but its uploader ran, and has to run again.
    Ran,
    /// It did not run.
    Stood,
}

impl Turn {
    fn of(member: &Member, before: Before, now: Timestamp) -> Self {
        Self { place: member.place.clone(), generation: member.generation, began: now, seen: now, before }
    }

    fn is_current(&self, now: Timestamp) -> bool {
        self.seen + TURN > now
    }
}

impl Turns {
    /// Whether it is the turn of session `uid`.
    pub(crate) fn has(&self, uid: &str, now: Timestamp) -> bool {
        self.turns.get(uid).is_some_and(|turn| turn.is_current(now))
    }

    /// Whether the next pod of session `uid` is on trial, if the session has this `generation`.
    pub(crate) fn is_trial(&self, uid: &str, generation: i64) -> bool {
        self.turns.get(uid).is_some_and(|turn| turn.before == Before::Well && turn.generation == generation)
    }

    /// Takes in the trials of `members`, which another leader has begun. Whoever has worked with the image for long is on trial no more.
    pub(crate) fn recall(&mut self, members: &[Member], now: Timestamp) {
        for member in members.iter().filter(|member| !self.proven.contains_key(&member.uid)) {
            self.turns.entry(member.uid.clone()).or_insert_with(|| Turn::of(member, Before::Well, now));
        }
    }

    /// Sessions that have to work with their next pods, as if they had none.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = Member> {
        let awaited = self.turns.iter().filter(|(_, turn)| turn.before != Before::Stood);
        awaited.map(|(uid, Turn { place, generation, .. })| Member {
            uid: uid.clone(),
            place: place.clone(),
            generation: *generation,
            state: State::WithoutPod,
        })
    }

    /// Forgets sessions that are gone, and turns of those that were changed since: how they fare says nothing of the image. A session
    /// has the `generation`, if it is there.
    pub(crate) fn forget_others(&mut self, generation: impl Fn(&Place, &str) -> Option<i64>) {
        self.turns.retain(|uid, turn| generation(&turn.place, uid) == Some(turn.generation));
        self.proven.retain(|uid, place| generation(place, uid).is_some());
    }

    /// Takes in how `members` fare with the new image at `now`.
    pub(crate) fn see(&mut self, members: &[Member], now: Timestamp) {
        for member in members {
            match member.state {
                State::Outdated { .. } | State::Leaving => {}
                State::WithoutPod => self.goes_on(member, now),
                State::OnTrial(health) if !health.is_well() && !self.proven.contains_key(&member.uid) => self.goes_on(member, now),
                State::OnTrial(health) => {
                    self.turns.remove(&member.uid);
                    if health == Health::Proven {
                        self.proven.insert(member.uid.clone(), member.place.clone());
                    }
                }
                State::Settled { works } => match self.turns.get_mut(&member.uid) {
                    Some(turn) if turn.before == Before::Ran && !works => turn.seen = now,
                    _ => drop(self.turns.remove(&member.uid)),
                },
            }
        }
        if !members.iter().any(|member| member.state.is_outdated()) {
            self.proven.clear();
        }
    }

    /// The trial of `member` goes on at `now`.
    fn goes_on(&mut self, member: &Member, now: Timestamp) {
        let turn = self.turns.entry(member.uid.clone()).or_insert_with(|| Turn::of(member, Before::Well, now));
        turn.seen = now;
    }

    fn current(&self, now: Timestamp) -> impl Iterator<Item = &Turn> {
        self.turns.values().filter(move |turn| turn.is_current(now))
    }

    /// How many of those that fared so `before` may get the image at `now`, of `most` at a time.
    fn free(&self, before: Before, most: usize, now: Timestamp) -> usize {
        most.saturating_sub(self.current(now).filter(|turn| turn.before == before).count())
    }

    /// Gives turns at `now`, so that no more than `most` are on trial, and as many have to run again; whoever had one in vain waits for
    /// all others.
    pub(crate) fn give(&mut self, members: &[Member], most: NonZeroUsize, now: Timestamp) -> Vec<Member> {
        let free = self.free(Before::Well, most.get(), now);
        // One that runs may recover with the image that it has.
        let others_try_first = members.iter().filter_map(Member::health_if_outdated).any(Health::is_ready);
        let may_run = if free > 0 && !others_try_first { self.free(Before::Ran, most.get(), now) } else { 0 };
        let is_standing = |health| health == Health::Down || (free > 0 && health == Health::Unwell { runs: false });
        let may_stand = self.free(Before::Stood, UNWELL_AT_A_TIME, now);
        let turns = [
            (Before::Well, self.queue(members, Health::is_well, now), free),
            (Before::Ran, self.queue(members, |health| health == Health::Unwell { runs: true }, now), may_run),
            (Before::Stood, self.queue(members, is_standing, now), may_stand),
        ];
        let mut chosen = Vec::new();
        for (before, queue, free) in turns {
            for member in queue.into_iter().take(free) {
                self.turns.insert(member.uid.clone(), Turn::of(member, before, now));
                chosen.push(member.clone());
            }
        }
        chosen
    }

    /// Those of `members` whose `health` is wanted and who have no turn, in the order in which they get one.
    fn queue<'a>(&self, members: &'a [Member], health: impl Fn(Health) -> bool, now: Timestamp) -> Vec<&'a Member> {
        let waits = |member: &&Member| member.health_if_outdated().is_some_and(&health) && !self.has(&member.uid, now);
        let mut queue: Vec<_> = members.iter().filter(waits).collect();
        queue.sort_by_key(|member| (self.turns.get(&member.uid).map(|turn| turn.seen), member.is_busy(), &member.place));
        queue
    }

    /// Where the sessions are that hold up the rollout, if it is held up.
    pub(crate) fn blockers(&self, members: &[Member], most: NonZeroUsize, now: Timestamp) -> Vec<Place> {
        let is_waited_for =
            self.free(Before::Well, most.get(), now) == 0 && members.iter().any(|member| member.state.is_outdated());
        let is_blocker = |member: &&Member| {
            let turn = self.turns.get(&member.uid).filter(|_| matches!(member.state, State::OnTrial(_) | State::WithoutPod));
            turn.is_some_and(|turn| turn.before == Before::Well && turn.began + TRIAL <= now)
        };
        let mut blockers: Vec<_> =
            members.iter().filter(|_| is_waited_for).filter(is_blocker).map(|member| member.place.clone()).collect();
        blockers.sort();
        blockers
    }
}

/// A session whose uploader has the installation's image, or had.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// UID of the session.
    pub uid: String,
    /// Where the session is.
    pub place: Place,
    /// Generation of the session.
    pub generation: i64,
    /// How far it is.
    pub state: State,
}

impl Member {
    fn health_if_outdated(&self) -> Option<Health> {
        match self.state {
            State::Outdated { health, .. } => Some(health),
            _ => None,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self.state, State::Outdated { idle: false, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: State = outdated(Health::Proven, false);
    const IDLE: State = outdated(Health::Proven, true);
    /// With the old image.
    const STOPPED: State = outdated(Health::Unwell { runs: false }, false);
    const DOWN: State = outdated(Health::Down, false);
    const RUNS_UNWELL: State = outdated(Health::Unwell { runs: true }, false);
    const JUST_READY: State = outdated(Health::Unproven, true);
    /// With the new one.
    const STARTING: State = State::OnTrial(Health::Unwell { runs: false });
    const STARTED: State = State::OnTrial(Health::Unproven);
    const WORKS: State = State::OnTrial(Health::Well);
    const PROVEN: State = State::OnTrial(Health::Proven);
    const SETTLED: State = State::Settled { works: true };
    const CRASHES: State = State::Settled { works: false };

    const fn outdated(health: Health, idle: bool) -> State {
        State::Outdated { health, idle }
    }

    const GENERATION: i64 = 1;

    fn members(states: &[State]) -> Vec<Member> {
        let member = |(number, state): (usize, &State)| Member {
            uid: format!("uid-{number}"),
            place: Place::new("cameras", &format!("truck-{number}")),
            generation: GENERATION,
            state: *state,
        };
        states.iter().enumerate().map(member).collect()
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn most(most: usize) -> NonZeroUsize {
        NonZeroUsize::new(most).unwrap()
    }

    /// Who gets a turn when the sessions with the numbers of `states` are like that.
    fn given(turns: &mut Turns, states: &[State], limit: usize, minute: i64) -> Vec<String> {
        let members = members(states);
        turns.see(&members, at(minute));
        turns.give(&members, most(limit), at(minute)).into_iter().map(|member| member.uid).collect()
    }

    fn chosen(states: &[State], limit: usize) -> Vec<String> {
        given(&mut Turns::default(), states, limit, 0)
    }

    const NOBODY: [&str; 0] = [];

    #[test]
    fn idle_sessions_go_first_and_no_more_than_allowed() {
        assert_eq!(chosen(&[BUSY, IDLE, IDLE], 1), ["uid-1"]);
        assert_eq!(chosen(&[BUSY, IDLE, IDLE], 2), ["uid-1", "uid-2"]);
        assert_eq!(chosen(&[BUSY, BUSY], 9), ["uid-0", "uid-1"]);
    }

    #[test]
    fn whoever_is_on_trial_keeps_others_waiting_until_it_is_well() {
        for state in [STARTING, STARTED] {
            assert_eq!(chosen(&[state, IDLE], 1), NOBODY, "{state:?}");
            assert_eq!(chosen(&[state, IDLE], 2), ["uid-1"], "{state:?}");
        }
        for state in [WORKS, PROVEN, SETTLED] {
            assert_eq!(chosen(&[state, IDLE], 1), ["uid-1"], "{state:?}");
        }
    }

    #[test]
    fn turn_lasts_from_its_choice_over_its_pod_to_the_end_of_the_trial() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[BUSY, BUSY], 1, 0), ["uid-0"]);
        assert_eq!(given(&mut turns, &[BUSY, BUSY], 1, 1), NOBODY, "its pod still has the old image");
        assert_eq!(given(&mut turns, &[State::Leaving, BUSY], 1, 2), NOBODY);
        assert!(turns.has("uid-0", at(2)) && turns.is_trial("uid-0", GENERATION));
        assert_eq!(given(&mut turns, &[STARTING, BUSY], 1, 3), NOBODY);
        assert_eq!(given(&mut turns, &[STARTED, BUSY], 1, 4), NOBODY);
        assert_eq!(given(&mut turns, &[WORKS, BUSY], 1, 5), ["uid-1"]);
        assert!(!turns.is_trial("uid-0", GENERATION));
    }

    #[test]
    fn image_that_does_not_work_stops_the_rollout_for_ever_and_for_everybody() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[IDLE, IDLE, STOPPED, RUNS_UNWELL], 1, 0), ["uid-0", "uid-2"]);
        for minute in 1..600 {
            assert_eq!(given(&mut turns, &[STARTING, IDLE, STOPPED, RUNS_UNWELL], 1, minute), NOBODY, "{minute}");
        }
    }

    #[test]
    fn session_that_is_down_gets_the_image_though_others_hold_up_the_rollout() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[STARTING, IDLE, DOWN, STOPPED, RUNS_UNWELL], 1, 0), ["uid-2"]);
        assert!(!turns.is_trial("uid-2", GENERATION));
        assert_eq!(given(&mut turns, &[STARTING, IDLE, DOWN], 1, 1), NOBODY, "its own turn lasts");
    }

    #[test]
    fn image_that_works_between_two_crashes_holds_its_slot_again() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[WORKS, IDLE, IDLE], 1, 0), ["uid-1"]);
        assert_eq!(given(&mut turns, &[STARTING, WORKS, IDLE], 1, 1), NOBODY);
    }

    #[test]
    fn trouble_of_a_session_that_has_worked_with_the_image_for_long_is_its_own() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[PROVEN, BUSY, BUSY], 1, 0), ["uid-1"]);
        assert_eq!(given(&mut turns, &[STARTING, WORKS, BUSY], 1, 1), ["uid-2"]);
        let mut new_leader = Turns::default();
        assert_eq!(given(&mut new_leader, &[STARTING, WORKS, BUSY], 1, 1), NOBODY, "it cannot know");
    }

    #[test]
    fn trial_that_another_leader_began_keeps_others_waiting_unless_the_image_has_worked_for_long_by_now() {
        let began_before = |turns: &mut Turns| turns.recall(&members(&[State::WithoutPod]), at(1));
        let mut turns = Turns::default();
        began_before(&mut turns);
        assert_eq!(given(&mut turns, &[State::Leaving, IDLE], 1, 1), NOBODY);
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[PROVEN, BUSY, BUSY], 1, 0), ["uid-1"]);
        began_before(&mut turns);
        assert_eq!(given(&mut turns, &[State::Leaving, WORKS, BUSY], 1, 1), ["uid-2"]);
    }

    #[test]
    fn session_that_was_not_well_before_holds_up_nobody() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[STOPPED, IDLE, BUSY], 1, 0), ["uid-1", "uid-0"]);
        assert!(!turns.is_trial("uid-0", GENERATION));
        assert_eq!(given(&mut turns, &[STOPPED, WORKS, BUSY], 1, 1), ["uid-2"], "its own turn lasts");
        assert_eq!(given(&mut turns, &[SETTLED, WORKS, WORKS, BUSY], 1, 2), ["uid-3"]);
    }

    #[test]
    fn sessions_that_are_not_well_get_the_image_a_few_at_a_time() {
        let mut turns = Turns::default();
        let mut states = [STOPPED; 25];
        assert_eq!(given(&mut turns, &states, 1, 0).len(), UNWELL_AT_A_TIME);
        assert_eq!(given(&mut turns, &states, 1, 1), NOBODY);
        states[0] = SETTLED;
        assert_eq!(given(&mut turns, &states, 1, 2).len(), 1);
    }

    #[test]
    fn session_that_runs_and_may_recover_waits_until_those_that_are_well_have_tried_the_image() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[RUNS_UNWELL, BUSY], 2, 0), ["uid-1"]);
        assert_eq!(given(&mut turns, &[RUNS_UNWELL, BUSY], 2, 1), NOBODY);
        assert_eq!(given(&mut turns, &[RUNS_UNWELL, WORKS], 2, 2), ["uid-0"]);
        assert_eq!(chosen(&[RUNS_UNWELL, RUNS_UNWELL], 1), ["uid-0"], "nobody is well");
    }

    #[test]
    fn session_that_is_ready_since_a_moment_waits_until_it_is_known_how_it_fares() {
        assert_eq!(chosen(&[JUST_READY, RUNS_UNWELL], 2), NOBODY);
        assert_eq!(chosen(&[JUST_READY, BUSY], 2), ["uid-1"]);
    }

    #[test]
    fn turn_in_vain_goes_to_the_others_first() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 0), ["uid-0"]);
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 4), NOBODY);
        assert_eq!(given(&mut turns, &[IDLE, IDLE, BUSY], 1, 5), ["uid-1"]);
        assert_eq!(given(&mut turns, &[IDLE, WORKS, BUSY], 1, 6), ["uid-2"], "though uid-0 is idle");
        assert_eq!(given(&mut turns, &[IDLE, WORKS, WORKS], 1, 7), ["uid-0"]);
    }

    #[test]
    fn pod_that_does_not_end_holds_the_others_for_a_turn_only() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[IDLE, IDLE], 1, 0), ["uid-0"]);
        assert_eq!(given(&mut turns, &[State::Leaving, IDLE], 1, 1), NOBODY);
        assert_eq!(given(&mut turns, &[State::Leaving, IDLE], 1, 5), ["uid-1"]);
        assert_eq!(given(&mut turns, &[State::Leaving, WORKS], 1, 6), NOBODY);
    }

    #[test]
    fn session_whose_next_pod_cannot_be_made_holds_up_the_rollout_for_as_long_as_it_wants_one() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[BUSY, BUSY], 1, 0), ["uid-0"]);
        for minute in 1..600 {
            assert_eq!(turns.awaited().collect::<Vec<_>>(), members(&[State::WithoutPod]));
            assert_eq!(given(&mut turns, &[State::WithoutPod, BUSY], 1, minute), NOBODY, "{minute}");
            assert!(turns.is_trial("uid-0", GENERATION));
        }
        let wants_none = members(&[BUSY, BUSY]).split_off(1);
        let mut given = |minute| {
            turns.see(&wants_none, at(minute));
            turns.give(&wants_none, most(1), at(minute)).len()
        };
        assert_eq!((given(603), given(604)), (0, 1));
    }

    #[test]
    fn only_sessions_on_trial_are_asked_whether_they_have_a_pod() {
        let mut turns = Turns::default();
        given(&mut turns, &[STOPPED], 1, 0);
        assert_eq!(turns.awaited().next(), None);
    }

    #[test]
    fn session_that_was_changed_since_its_turn_is_not_on_trial_and_holds_up_nobody() {
        let mut turns = Turns::default();
        assert_eq!(given(&mut turns, &[STARTING, IDLE], 1, 0), NOBODY);
        assert!(turns.is_trial("uid-0", GENERATION) && !turns.is_trial("uid-0", GENERATION + 1));
        turns.forget_others(|_, _| Some(GENERATION + 1));
        assert_eq!(given(&mut turns, &[SETTLED, IDLE], 1, 1), ["uid-1"]);
    }

    #[test]
    fn what_is_known_of_sessions_that_are_gone_is_forgotten() {
        let mut turns = Turns::default();
        given(&mut turns, &[STARTING, PROVEN, IDLE], 1, 0);
        turns.forget_others(|place, _| (place.name() == "truck-0").then_some(GENERATION));
        assert_eq!((turns.turns.len(), turns.proven.len()), (1, 0));
        turns.forget_others(|_, _| None);
        assert!(turns.turns.is_empty());
    }

    #[test]
    fn sessions_that_hold_up_the_rollout_are_named_once_a_start_has_had_its_time() {
        let mut turns = Turns::default();
        let mut blockers = |states: &[State], limit, minute| {
            given(&mut turns, states, limit, minute);
            turns.blockers(&members(states), most(limit), at(minute))
        };
        let first = [Place::new("cameras", "truck-0")];
        assert_eq!(blockers(&[STARTING, IDLE, STOPPED], 1, 0), []);
        assert_eq!(blockers(&[STARTING, IDLE, STOPPED], 1, 4), []);
        assert_eq!(blockers(&[STARTING, IDLE, STOPPED], 1, 5), first);
        assert_eq!(blockers(&[STARTING, STARTING, IDLE], 2, 6), first, "the other one has just begun");
        assert_eq!(blockers(&[STARTING, STARTING, SETTLED], 2, 7), [], "nobody waits");
        assert_eq!(blockers(&[WORKS, STARTING, IDLE], 2, 8), [], "others go on");
        let second = [Place::new("cameras", "truck-1")];
        assert_eq!(blockers(&[WORKS, State::WithoutPod, IDLE], 1, 11), second, "its pod cannot be made");
    }

    #[test]
    fn in_an_outage_an_image_with_which_no_uploader_runs_goes_no_further() {
        let mut turns = Turns::default();
        let mut states = [RUNS_UNWELL; 5];
        assert_eq!(given(&mut turns, &states, 2, 0), ["uid-0", "uid-1"]);
        (states[0], states[1]) = (CRASHES, SETTLED);
        assert_eq!(given(&mut turns, &states, 2, 1), ["uid-2"], "one runs again");
        states[2] = CRASHES;
        for minute in 2..30 {
            assert_eq!(given(&mut turns, &states, 2, minute), [""; 0], "{minute}");
        }
        // Nor if there is no pod any more, as if the image was refused.
        for minute in 30..50 {
            (states[0], states[2]) = (State::WithoutPod, State::WithoutPod);
            assert_eq!(turns.awaited().count(), 2);
            assert_eq!(given(&mut turns, &states, 2, minute), [""; 0], "{minute}");
        }
        assert_eq!(turns.blockers(&members(&states), most(2), at(50)), [], "nobody who is well waits for them");
        states[3] = STOPPED;
        assert_eq!(given(&mut turns, &states, 2, 50), ["uid-3"], "it loses nothing");
        states[0] = SETTLED;
        assert_eq!(given(&mut turns, &states, 2, 51), ["uid-4"]);
    }
}
