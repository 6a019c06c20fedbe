//! The smallest service that needs the whole log: a ledger whose lanes share one account, and a
//! site that sends it requests to spend. Its own topic is read by the reader that every topic has.
//!
//! The ledger does not check whether it has answered a request, so that only positions keep it from
//! spending twice. The account has enough for one request, so that a decision on an incompletely
//! recovered account shows.

use super::{Command, DeadlineChange, Fact, Folded, Reaction, Services, Site};

/// Index of the ledger among the sites.
pub const LEDGER: usize = 0;
const REQUESTS: usize = 1;

const REQUEST: u16 = 0;
const SPENT: u16 = 10;
const REFUSED: u16 = 20;
const NOTED: u16 = 30;
const NO_OP: u16 = 40;

/// The ledger and the site of its requests.
#[derive(Debug)]
pub struct Ledger {
    lanes: usize,
    /// Whether a message without effect comes before the first request of lane 0.
    no_op_first: bool,
    /// Whether the client's command is a deposit. If it is lost with the database, and what another
    /// lane spent of it is not, the account ends below zero: a limit of the design, which a test
    /// shows.
    pays_in: bool,
}

impl Ledger {
    /// A ledger with this many lanes, each with one request to spend.
    #[must_use]
    pub fn new(lanes: usize, no_op_first: bool, pays_in: bool) -> Self {
        Self { lanes, no_op_first, pays_in }
    }

    fn balance(&self, state: Folded) -> i32 {
        let count =
            |mask: u16| i32::try_from((state.0 & mask).count_ones()).expect("at most 16 bits");
        1 + if self.pays_in { count(0b100_100_100) } else { 0 } - count(0b001_001_001)
    }
}

/// The bit of an event. A state is a set of events: two bits per lane for the answer (spent,
/// refused), and one for the client's command (noted).
fn bit(fact: Fact) -> u16 {
    let lane = fact.0 % 10;
    match fact.0 - lane {
        SPENT => 1 << (3 * lane),
        REFUSED => 2 << (3 * lane),
        NOTED => 4 << (3 * lane),
        _ => 0,
    }
}

/// The bit of a state in which an event was applied twice.
const TWICE: u16 = 1 << 15;

impl Services for Ledger {
    fn sites(&self) -> Vec<Site> {
        let requests = |lane: u16| {
            let no_op = (self.no_op_first && lane == 0).then_some(Fact(NO_OP + lane));
            no_op.into_iter().chain([Fact(REQUEST + lane)]).collect()
        };
        let lanes = u16::try_from(self.lanes).expect("a few lanes");
        let site = |name, inputs: &[usize]| Site {
            name,
            inputs: inputs.to_vec(),
            script: vec![vec![]; self.lanes],
        };
        vec![
            site("ledger", &[REQUESTS]),
            Site { script: (0..lanes).map(requests).collect(), ..site("requests", &[]) },
        ]
    }

    fn initial_states(&self) -> Vec<Vec<Folded>> {
        vec![vec![Folded(0); 2]]
    }

    fn commands(&self, site: usize) -> &'static [Command] {
        if site == LEDGER { &[Command::Begin] } else { &[] }
    }

    fn decide(&self, _site: usize, state: Folded, lane: usize, _command: Command) -> Reaction {
        let noted = Fact(NOTED + u16::try_from(lane).expect("a few lanes"));
        if lane > 0 || state.0 & bit(noted) != 0 {
            Reaction::Nothing
        } else {
            Reaction::Event(noted)
        }
    }

    fn react(&self, site: usize, state: Folded, fact: Fact) -> Reaction {
        let lane = fact.0 % 10;
        match (site, fact.0 - lane) {
            (LEDGER, REQUEST) if self.balance(state) > 0 => Reaction::Event(Fact(SPENT + lane)),
            (LEDGER, REQUEST) => Reaction::Event(Fact(REFUSED + lane)),
            _ => Reaction::Nothing,
        }
    }

    fn evolve(&self, _site: usize, state: Folded, fact: Fact) -> Folded {
        let twice = if state.0 & bit(fact) != 0 { TWICE } else { 0 };
        Folded(state.0 | bit(fact) | twice)
    }

    fn deadline(&self, _site: usize, _fact: Fact) -> DeadlineChange {
        DeadlineChange::None
    }

    fn fault_in(&self, site: usize, state: Folded, whole: bool) -> Option<&'static str> {
        let both = (0..self.lanes).any(|lane| state.0 >> (3 * lane) & 0b011 == 0b011);
        match site {
            LEDGER if state.0 & TWICE != 0 || both => {
                Some("a request was answered twice, or an answer applied twice")
            }
            LEDGER if whole && self.balance(state) < 0 => Some("more was spent than there was"),
            _ => None,
        }
    }

    fn fault_between(&self, _states: &[Folded]) -> Option<&'static str> {
        None
    }

    fn unfinished(&self, states: &[Folded]) -> Option<&'static str> {
        let answered = (0..self.lanes).all(|lane| states[LEDGER].0 >> (3 * lane) & 0b011 != 0);
        (!answered).then_some("a request is never answered")
    }

    fn words(&self, fact: Fact) -> String {
        let lane = fact.0 % 10;
        let what = match fact.0 - lane {
            REQUEST => "request to spend",
            SPENT => "Spent",
            REFUSED => "Refused",
            NOTED if self.pays_in => "PaidIn",
            NOTED => "Noted",
            _ => "message without effect",
        };
        format!("{what} in lane {lane}")
    }
}
