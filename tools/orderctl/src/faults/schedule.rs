//! The schedule of faults, which a seed decides beforehand. Pure.

use std::time::Duration;

use devstack::proxy::Network;
use fastrand::Rng;

use crate::system::Service;

/// A server that services connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Kafka,
    Postgres,
}

/// What a stranger's transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It locks rows that the service needs.
    Locks,
    /// It has a transaction id and stays open.
    StaysOpen,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 of a replica, which is started again after `down`.
    Kill { service: Service, nth: usize, down: Duration },
    /// SIGSTOP of a replica, and SIGCONT after `hold`, which is longer than its lease.
    Pause { service: Service, nth: usize, hold: Duration },
    /// kill -9 of a server, which is started again after `down`.
    KillServer { server: Server, down: Duration },
    /// The connection of one service to a server is disturbed for `hold`.
    Network { service: Service, server: Server, network: Network, hold: Duration },
    /// The connections of one service to a server are forgotten: they are silent for good.
    Forget { service: Service, server: Server },
    /// A stranger's transaction is open in a service's database for `hold`.
    Foreign { service: Service, foreign: Foreign, hold: Duration },
    /// The last records of a service's topic are produced again.
    Repeat { service: Service },
    /// Postgres is stopped and copied.
    Copy,
    /// Postgres is restored from the last copy.
    PutBack,
    /// The database of a service is dropped and created again.
    Drop { service: Service },
}

/// Names of the kills of the servers in the report.
pub(super) const KAFKA_KILLED: &str = "kafka killed";
pub(super) const POSTGRES_KILLED: &str = "postgres killed";
/// Faults per minute.
pub(super) const A_MINUTE: u32 = 26;
/// Replicas per service.
pub(super) const REPLICAS: usize = 2;

/// Returns the faults of this many minutes, each with its time.
pub(super) fn schedule(minutes: u32, seed: u64) -> Vec<(Duration, Fault)> {
    let mut rng = Rng::with_seed(seed);
    let mut faults = Vec::new();
    for minute in 0..minutes {
        let mut of_minute = a_minute(minute as usize, &mut rng);
        rng.shuffle(&mut of_minute);
        // The copy is taken in the first third of the minute and restored in the last, so that it
        // lacks something by then.
        let third = of_minute.len() / 3;
        of_minute.insert(rng.usize(..third), Fault::Copy);
        of_minute.insert(2 * third + rng.usize(..third), Fault::PutBack);
        faults.extend(of_minute);
    }
    let interval = Duration::from_secs(60) / A_MINUTE;
    let jitter = |rng: &mut Rng| milliseconds(rng, 0..1_000);
    (0u32..).zip(faults).map(|(nth, fault)| (interval * nth + jitter(&mut rng), fault)).collect()
}

/// Returns the faults of a minute: every kind, except the copy and its restoration.
fn a_minute(minute: usize, rng: &mut Rng) -> Vec<Fault> {
    let mut faults = vec![Fault::Drop { service: nth(rng.usize(..Service::all().len()) + minute) }];
    for server in [Server::Kafka, Server::Postgres] {
        faults.push(Fault::KillServer { server, down: milliseconds(rng, 0..2_000) });
        for network in
            [Network::Cut, Network::BlackHole, Network::Delay(milliseconds(rng, 20..300))]
        {
            faults.push(Fault::Network {
                service: any(rng),
                server,
                network,
                hold: milliseconds(rng, 500..4_000),
            });
        }
    }

    let server = if rng.bool() { Server::Kafka } else { Server::Postgres };
    faults.push(Fault::Forget { service: any(rng), server });

    for (foreign, longest) in [(Foreign::Locks, 4_000), (Foreign::StaysOpen, 20_000)] {
        faults.push(Fault::Foreign {
            service: any(rng),
            foreign,
            hold: milliseconds(rng, 1_000..longest),
        });
    }

    for _ in 0..2 {
        faults.push(Fault::Repeat { service: any(rng) });
    }
    for _ in 0..4 {
        faults.push(Fault::Pause {
            service: any(rng),
            nth: rng.usize(..REPLICAS),
            hold: milliseconds(rng, 1_500..4_000),
        });
    }

    while faults.len() + 2 < A_MINUTE as usize {
        faults.push(Fault::Kill {
            service: any(rng),
            nth: rng.usize(..REPLICAS),
            down: milliseconds(rng, 0..800),
        });
    }

    faults
}

fn any(rng: &mut Rng) -> Service {
    nth(rng.usize(..Service::all().len()))
}

/// Returns the service with this index, modulo their number.
fn nth(index: usize) -> Service {
    Service::all().cycle().nth(index).expect("services.toml has services")
}

fn milliseconds(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

impl Fault {
    /// Returns its name in the report.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "replica killed",
            Self::Pause { .. } => "replica paused beyond its lease",
            Self::KillServer { server: Server::Kafka, .. } => KAFKA_KILLED,
            Self::KillServer { server: Server::Postgres, .. } => POSTGRES_KILLED,
            Self::Network { server: Server::Kafka, network, .. } => match network {
                Network::Cut => "connection to kafka cut",
                Network::BlackHole => "connection to kafka black-holed",
                _ => "connection to kafka delayed",
            },
            Self::Network { server: Server::Postgres, network, .. } => match network {
                Network::Cut => "connection to postgres cut",
                Network::BlackHole => "connection to postgres black-holed",
                _ => "connection to postgres delayed",
            },
            Self::Forget { server: Server::Kafka, .. } => "connections to kafka forgotten",
            Self::Forget { server: Server::Postgres, .. } => "connections to postgres forgotten",
            Self::Foreign { foreign: Foreign::Locks, .. } => "foreign transaction with locks",
            Self::Foreign { foreign: Foreign::StaysOpen, .. } => "foreign transaction left open",
            Self::Repeat { .. } => "records produced again",
            Self::Copy => "postgres stopped and copied",
            Self::PutBack => "postgres put back to the copy",
            Self::Drop { .. } => "database dropped and created",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_schedule_and_another_another() {
        assert_eq!(schedule(3, 7), schedule(3, 7));
        assert_ne!(schedule(3, 7), schedule(3, 8));
    }

    #[test]
    fn three_minutes_hold_more_than_sixty_faults_and_three_restarts_of_each_server() {
        for seed in 0..20 {
            let schedule = schedule(3, seed);
            let count =
                |kind: &str| schedule.iter().filter(|(_, fault)| fault.kind() == kind).count();
            assert_eq!(schedule.len(), 78);
            assert_eq!(
                [KAFKA_KILLED, POSTGRES_KILLED, "postgres put back to the copy"].map(count),
                [3, 3, 3]
            );
        }
    }

    #[test]
    fn nothing_is_put_back_before_it_was_copied() {
        for seed in 0..20 {
            let schedule = schedule(1, seed);
            let place = |wanted: &Fault| schedule.iter().position(|(_, fault)| fault == wanted);
            assert!(place(&Fault::Copy) < place(&Fault::PutBack));
        }
    }
}
