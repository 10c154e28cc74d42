//! Ports on the loopback interface.
//!
//! Never from the ephemeral range (32768 and up on Linux): while a server is down, a client that keeps reconnecting to its loopback port may be given that
//! very port as its own and connect to itself, or any other connection may take it, and the server could not come back.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Part, StackError};

const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
const TRIES: u32 = 500;

/// The ports of a stack, kept in its folder so that a restart keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) kafka: u16,
    pub(crate) kafka_controller: u16,
    pub(crate) postgres: u16,
    pub(crate) redis: u16,
}

/// A loopback port that was free a moment ago, outside the ephemeral range.
///
/// # Errors
/// [`StackError::NoFreePort`].
pub fn free_port() -> Result<u16, StackError> {
    reserve_free().map(|(port, _)| port)
}

/// So many [`free_port`]s that differ from each other and from `others`, which are somebody's already but perhaps not in use yet.
///
/// # Errors
/// [`StackError::NoFreePort`].
pub fn free_ports(count: usize, others: &[u16]) -> Result<Vec<u16>, StackError> {
    let mut held = hold(others);
    let mut ports = Vec::new();
    for _ in 0..count {
        let (port, listener) = reserve_free()?;
        held.push(listener);
        ports.push(port);
    }
    Ok(ports)
}

fn reserve_free() -> Result<(u16, TcpListener), StackError> {
    for _ in 0..TRIES {
        // A fresh hasher is seeded by the system: randomness without a dependency.
        let random = RandomState::new().build_hasher().finish();
        let span = u64::from(LAST - FIRST);
        let Ok(offset) = u16::try_from(random % span) else { continue };
        let port = FIRST + offset;
        if let Some(listener) = reserve(port) {
            return Ok((port, listener));
        }
    }
    Err(StackError::NoFreePort)
}

fn reserve(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// Keeps these from being chosen. One that is in use can't be chosen anyway.
fn hold(ports: &[u16]) -> Vec<TcpListener> {
    ports.iter().filter_map(|port| reserve(*port)).collect()
}

impl Ports {
    /// Chooses ports: those asked for, else those of the last time, else free ones; never one of `others`. All are held until all are
    /// chosen, so that they differ.
    pub(crate) fn choose(
        dir: &Path,
        others: &[u16],
        kafka: Option<u16>,
        postgres: Option<u16>,
        redis: Option<u16>,
    ) -> Result<Self, StackError> {
        let file = dir.join("ports.json");
        let last: Option<Self> = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut held = hold(others);
        let mut pick = |part, asked: Option<u16>, last: Option<u16>| -> Result<u16, StackError> {
            let (port, listener) = match asked {
                Some(port) => (port, reserve(port).ok_or(StackError::PortInUse { part, port })?),
                None => match last.and_then(|port| Some((port, reserve(port)?))) {
                    Some(found) => found,
                    None => reserve_free()?,
                },
            };
            held.push(listener);
            Ok(port)
        };
        let ports = Self {
            kafka: pick(Part::Kafka, kafka, last.map(|p| p.kafka))?,
            postgres: pick(Part::Postgres, postgres, last.map(|p| p.postgres))?,
            redis: pick(Part::Redis, redis, last.map(|p| p.redis))?,
            kafka_controller: pick(Part::Kafka, None, last.map(|p| p.kafka_controller))?,
        };
        if last != Some(ports) {
            let text = serde_json::to_vec(&ports).map_err(std::io::Error::other);
            text.and_then(|text| fs::write(&file, text)).map_err(StackError::io("write", &file))?;
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FIRST, LAST, Ports, free_port, free_ports, reserve};
    use crate::StackError;

    // One test, because each part of it takes ports that another one counts on.
    #[test]
    fn ports_differ_and_are_kept_unless_taken_and_a_taken_one_that_was_asked_for_is_an_error() {
        let other = free_port().unwrap();
        // So many that some would be the same by chance.
        let count = usize::from((LAST - FIRST) / 30);
        let ports: BTreeSet<u16> = free_ports(count, &[other]).unwrap().into_iter().collect();
        assert_eq!(ports.len(), count);
        assert!(!ports.contains(&other));

        let dir = std::env::temp_dir().join(format!("ports-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let first = Ports::choose(&dir, &[], None, None, None).unwrap();
        assert_eq!(Ports::choose(&dir, &[], None, None, None).unwrap(), first);

        let taken = reserve(first.redis).unwrap();
        let second = Ports::choose(&dir, &[], None, None, None).unwrap();
        assert_eq!(second.kafka, first.kafka);
        assert_ne!(second.redis, first.redis);
        let refused = Ports::choose(&dir, &[], None, None, Some(first.redis));
        assert!(matches!(refused, Err(StackError::PortInUse { .. })), "{refused:?}");
        drop(taken);

        let others = [first.redis, second.postgres];
        let third = Ports::choose(&dir, &others, None, None, None).unwrap();
        assert_eq!(third.kafka, second.kafka);
        assert!(!others.contains(&third.postgres), "{third:?}");
        assert!(matches!(
            Ports::choose(&dir, &others, None, Some(others[1]), None),
            Err(StackError::PortInUse { .. })
        ));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
