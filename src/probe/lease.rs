//! Which of several exporters probes an instance. Pure: time is passed in.
//!
//! The right to probe is a lease in a store that all exporters share. Its holder renews it; the first that finds none takes it.
//!
//! - There is always a prober: without a response of the store, every exporter probes once no lease can be in force.
//! - A holder stops before its lease can have ended in the store: it counts from before it asked, and leaves a margin
//!   for clocks that run at different speeds.
//! - So two exporters probe only while one of them cannot reach the store, and until it reaches it again.

use std::time::Duration;

use parking_lot::Mutex;

use clerk_quota::Moment;

/// A lease is renewed this many times before it ends.
const RENEWALS: u32 = 3;

/// Part of a lease that its holder does not use.
const MARGIN: f64 = 0.05;

/// How long a store may take to respond for the first time: a command may have to print its password first.
const PATIENCE: Duration = Duration::from_secs(3);

/// When to ask again meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What the store says of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseReply {
    /// This process has it now, for this long.
    Held(Duration),
    /// Another process has it for this long, unless it renews it.
    HeldByOther(Duration),
    /// It is not known: the store did not respond in time.
    Late,
    /// It is not known: the store cannot be reached, or refused.
    Unknown,
}

/// Whether this process probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseRole {
    /// It is not known yet.
    Undecided,
    /// It has the lease and probes.
    Holder,
    /// Another process probes.
    Standby,
    /// It probes because the store does not respond.
    Alone,
}

/// The lease of one instance, as far as this process knows.
#[derive(Debug)]
pub struct ProbeLease {
    state: Mutex<LeaseState>,
}

#[derive(Debug, Clone, Copy)]
struct LeaseState {
    length: Duration,
    knowledge: Knowledge,
    /// When to ask the store next.
    due: Moment,
    /// Until then, a store that has never responded may only be slow.
    patient_until: Moment,
    /// What was told of it last.
    told: LeaseRole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Nothing,
    Held { until: Moment },
    HeldByOther { until: Moment },
    NoResponse,
}

impl Knowledge {
    fn role(self, now: Moment) -> LeaseRole {
        match self {
            Self::Held { until } if now < until => LeaseRole::Holder,
            Self::HeldByOther { .. } => LeaseRole::Standby,
            Self::NoResponse => LeaseRole::Alone,
            Self::Nothing | Self::Held { .. } => LeaseRole::Undecided,
        }
    }
}

impl ProbeLease {
    /// A lease of which nothing is known, so that the store is to be asked at once.
    #[must_use]
    pub fn new(length: Duration, now: Moment) -> Self {
        let (knowledge, told) = (Knowledge::Nothing, LeaseRole::Undecided);
        Self { state: Mutex::new(LeaseState { length, knowledge, due: now, patient_until: now.after(PATIENCE), told }) }
    }

    /// How long the lease lasts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.state.lock().length
    }

    /// Changes how long the lease lasts, from the next renewal on.
    pub fn set_length(&self, length: Duration) {
        self.state.lock().length = length;
    }

    /// What this process does at `now`.
    #[must_use]
    pub fn role(&self, now: Moment) -> LeaseRole {
        self.state.lock().knowledge.role(now)
    }

    /// The role at `now` if it differs from the one at the last call, with that one. Undecided is not told: it lasts for
    /// one question.
    pub fn change(&self, now: Moment) -> Option<(LeaseRole, LeaseRole)> {
        let mut state = self.state.lock();
        let role = state.knowledge.role(now);
        if role == LeaseRole::Undecided || role == state.told {
            return None;
        }
        Some((std::mem::replace(&mut state.told, role), role))
    }

    /// Another process may take the lease from now on. This one probes until its own would have ended.
    pub fn give_up(&self, now: Moment) {
        let mut state = self.state.lock();
        match state.knowledge {
            Knowledge::Held { until } if now < until => {}
            _ => state.knowledge = Knowledge::HeldByOther { until: now },
        }
    }

    /// When to ask the store next.
    #[must_use]
    pub fn due(&self) -> Moment {
        self.state.lock().due
    }

    /// Takes in the reply to a question that was asked at `asked`. `random`, between 0 and 1, spreads the questions of
    /// many processes.
    pub fn replied(&self, asked: Moment, now: Moment, reply: LeaseReply, random: f64) {
        let mut state = self.state.lock();
        let (length, before) = (state.length, state.knowledge);
        if reply == LeaseReply::Late && before == Knowledge::Nothing && now < state.patient_until {
            state.due = now.after(ASK_AGAIN);
            return;
        }
        state.knowledge = match (reply, before) {
            (LeaseReply::Held(length), _) => Knowledge::Held { until: asked.after(length.mul_f64(1.0 - MARGIN)) },
            // The store counted from before the reply arrived: by then the lease has ended.
            (LeaseReply::HeldByOther(left), _) => Knowledge::HeldByOther { until: now.after(left) },
            // The other process may still have it, and so may this one.
            (LeaseReply::Late | LeaseReply::Unknown, Knowledge::Held { until } | Knowledge::HeldByOther { until })
                if now < until =>
            {
                before
            }
            (LeaseReply::Late | LeaseReply::Unknown, _) => Knowledge::NoResponse,
        };
        let usual = now.after((length / RENEWALS).mul_f64(1.0 - 0.1 * random.clamp(0.0, 1.0)));
        state.due = match state.knowledge {
            // The one that waits asks when the lease ends.
            Knowledge::Held { until } | Knowledge::HeldByOther { until } => usual.min(until),
            Knowledge::Nothing | Knowledge::NoResponse => usual,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(15);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
    }

    fn lease() -> ProbeLease {
        ProbeLease::new(LENGTH, at(0))
    }

    #[test]
    fn without_a_store_every_process_probes_at_once() {
        let lease = lease();
        assert_eq!(lease.role(at(0)), LeaseRole::Undecided);
        lease.replied(at(0), at(100), LeaseReply::Unknown, 0.0);
        assert_eq!(lease.role(at(100)), LeaseRole::Alone);
        assert_eq!(lease.due(), at(5_100));
    }

    #[test]
    fn holder_stops_before_its_lease_ends_whatever_it_hears() {
        let lease = lease();
        lease.replied(at(0), at(100), LeaseReply::Held(LENGTH), 0.0);
        assert_eq!((lease.role(at(14_249)), lease.role(at(14_250))), (LeaseRole::Holder, LeaseRole::Undecided));
        // Renewals fail.
        lease.replied(at(5_000), at(5_100), LeaseReply::Unknown, 0.0);
        lease.replied(at(10_000), at(10_100), LeaseReply::Unknown, 0.0);
        assert_eq!((lease.role(at(14_249)), lease.due()), (LeaseRole::Holder, at(14_250)));
        assert_eq!(lease.role(at(14_250)), LeaseRole::Undecided);
        // Nor does the store respond then: every process probes.
        lease.replied(at(14_250), at(14_350), LeaseReply::Unknown, 0.0);
        assert_eq!(lease.role(at(14_350)), LeaseRole::Alone);
        lease.replied(at(20_000), at(20_001), LeaseReply::HeldByOther(Duration::from_secs(9)), 0.0);
        assert_eq!(lease.role(at(60_000)), LeaseRole::Standby, "it stays one until the store says otherwise");
    }

    #[test]
    fn standby_probes_when_the_other_s_lease_has_ended_unrenewed() {
        let lease = lease();
        lease.replied(at(0), at(10), LeaseReply::HeldByOther(Duration::from_secs(2)), 0.0);
        assert_eq!((lease.role(at(10)), lease.due()), (LeaseRole::Standby, at(2_010)));
        lease.replied(at(1_000), at(1_100), LeaseReply::Unknown, 0.0);
        assert_eq!(lease.role(at(1_100)), LeaseRole::Standby, "the other one may still probe");
        assert_eq!(lease.due(), at(2_010));
        lease.replied(at(2_010), at(2_110), LeaseReply::Unknown, 0.0);
        assert_eq!(lease.role(at(2_110)), LeaseRole::Alone);
    }

    #[test]
    fn process_that_slept_does_not_probe_before_it_asked() {
        let lease = lease();
        lease.replied(at(0), at(1), LeaseReply::Held(LENGTH), 0.0);
        assert_eq!(lease.role(at(3_600_000)), LeaseRole::Undecided);
        lease.replied(at(3_600_000), at(3_600_001), LeaseReply::HeldByOther(LENGTH), 0.0);
        assert_eq!(lease.role(at(3_600_001)), LeaseRole::Standby);
    }

    #[test]
    fn slow_store_is_waited_for_at_the_start_only() {
        let lease = lease();
        lease.replied(at(0), at(100), LeaseReply::Late, 0.0);
        assert_eq!((lease.role(at(100)), lease.due()), (LeaseRole::Undecided, at(300)));
        lease.replied(at(2_900), at(3_000), LeaseReply::Late, 0.0);
        assert_eq!(lease.role(at(3_000)), LeaseRole::Alone);
        let lease = ProbeLease::new(LENGTH, at(0));
        lease.replied(at(0), at(100), LeaseReply::Held(LENGTH), 0.0);
        lease.replied(at(14_250), at(14_350), LeaseReply::Late, 0.0);
        assert_eq!(lease.role(at(14_350)), LeaseRole::Alone);
    }

    #[test]
    fn each_change_is_told_once() {
        let lease = lease();
        assert_eq!(lease.change(at(0)), None);
        lease.replied(at(0), at(1), LeaseReply::Held(LENGTH), 0.0);
        assert_eq!(lease.change(at(1)), Some((LeaseRole::Undecided, LeaseRole::Holder)));
        assert_eq!((lease.change(at(2)), lease.change(at(14_250))), (None, None), "it asks");
        lease.replied(at(14_250), at(14_251), LeaseReply::HeldByOther(LENGTH), 0.0);
        assert_eq!(lease.change(at(14_251)), Some((LeaseRole::Holder, LeaseRole::Standby)));
    }

    #[test]
    fn lease_that_is_given_up_lasts_until_its_end() {
        let lease = lease();
        lease.replied(at(0), at(1), LeaseReply::Held(LENGTH), 0.0);
        lease.give_up(at(2));
        assert_eq!(lease.role(at(14_249)), LeaseRole::Holder);
        lease.give_up(at(14_250));
        assert_eq!(lease.role(at(14_250)), LeaseRole::Standby);
    }

    /// One store and several processes, on one clock in milliseconds.
    struct World {
        holder: Option<(usize, u64)>,
        processes: Vec<ProbeLease>,
        is_reachable: Vec<bool>,
        runs: Vec<bool>,
        now: u64,
    }

    impl World {
        fn new(processes: usize) -> Self {
            Self {
                holder: None,
                processes: (0..processes).map(|_| lease()).collect(),
                is_reachable: vec![true; processes],
                runs: vec![true; processes],
                now: 0,
            }
        }

        /// What the store does in one step.
        fn ask(&mut self, process: usize) -> LeaseReply {
            if !self.is_reachable[process] {
                return LeaseReply::Unknown;
            }
            let length = LENGTH.as_secs() * 1000;
            match self.holder.filter(|(_, until)| self.now < *until) {
                Some((holder, until)) if holder != process => {
                    LeaseReply::HeldByOther(Duration::from_millis(until - self.now))
                }
                _ => {
                    self.holder = Some((process, self.now + length));
                    LeaseReply::Held(LENGTH)
                }
            }
        }

        fn step(&mut self, random: f64) {
            self.now += 10;
            for process in 0..self.processes.len() {
                if self.runs[process] && self.processes[process].due() <= at(self.now) {
                    let reply = self.ask(process);
                    self.processes[process].replied(at(self.now), at(self.now), reply, random);
                }
            }
        }

        fn probers(&self) -> Vec<usize> {
            let probes = |process: &usize| {
                let role = self.processes[*process].role(at(self.now));
                self.runs[*process] && matches!(role, LeaseRole::Holder | LeaseRole::Alone)
            };
            (0..self.processes.len()).filter(probes).collect()
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        /// A process loses the store, or finds it again.
        Toggle(usize),
        /// All of them do.
        Outage(bool),
        /// A process stops without a word, or starts again.
        Stop(usize),
        /// The store loses what it knew.
        Forget,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..3_usize).prop_map(Event::Toggle),
            any::<bool>().prop_map(Event::Outage),
            (0..3_usize).prop_map(Event::Stop),
            Just(Event::Forget),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever happens: no gap between probers longer than a lease; while all reach a store that forgets nothing, no
        /// more than one prober after a lease at most.
        #[test]
        fn there_is_a_prober_and_seldom_two(
            events in prop::collection::vec((1..4_000_u64, event()), 1..12),
            random in 0.0..1.0,
        ) {
            let mut world = World::new(3);
            let length = LENGTH.as_secs() * 1000;
            let (mut without, mut with_two, mut healthy) = (0, 0, 0);
            for (steps, event) in events {
                match event {
                    Event::Toggle(process) => world.is_reachable[process] ^= true,
                    Event::Outage(is_over) => world.is_reachable = vec![is_over; 3],
                    Event::Stop(process) => {
                        world.runs[process] ^= true;
                        if world.runs[process] {
                            world.processes[process] = ProbeLease::new(LENGTH, at(world.now));
                        }
                    }
                    Event::Forget => world.holder = None,
                }
                healthy = 0;
                for _ in 0..steps {
                    world.step(random);
                    let (probers, runs) = (world.probers(), world.runs.iter().any(|runs| *runs));
                    without = if probers.is_empty() && runs { without + 10 } else { 0 };
                    prop_assert!(without <= length + 10, "no prober for {without} ms");
                    let all_reach = (0..3).all(|it| world.is_reachable[it] || !world.runs[it]);
                    healthy = if all_reach { healthy + 10 } else { 0 };
                    with_two = if probers.len() > 1 && healthy > 0 { with_two + 10 } else { 0 };
                    prop_assert!(with_two <= length, "{} probers for {with_two} ms", probers.len());
                }
            }
            prop_assert!(healthy <= length || world.probers().len() <= 1);
        }
    }
}
