//! A consumer's databases: the state of a partition is touched by its owner alone, so each partition can live in any of them.
//!
//! The first database of the list is **home**. It keeps who is at which place of the list (`messaging_member`) and in which
//! database each partition is (`messaging_map`). A partition gets its place before its position and its state are written, and
//! keeps it: a trigger refuses every change. Every take-over reads the place from home. So whatever lists processes were given,
//! two of them can only disagree about a partition by disagreeing about home, and each database knows its home:
//! [`Databases::open`] refuses a list that does not fit. docs/adr/0019 has the walk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgPool;
use uuid::Uuid;

use crate::PositionError;
use crate::store::PositionKey;

mod store;

/// Why a list of databases can't be used. Nothing was consumed, and no state was written.
#[derive(Debug, thiserror::Error)]
pub enum DatabasesError {
    /// A database can't be reached or refuses.
    #[error("database {number} of the list failed")]
    Failed {
        /// Its place in the list; home is 0.
        number: i32,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The list is empty.
    #[error("the list of databases is empty: name at least one")]
    None,
    /// Two places of the list are one database, or one is a copy of the other.
    #[error(
        "databases {first} and {second} of the list are the same, or one is a copy of the other: list each once; \
         in a copy that shall be a database of its own, empty messaging_database first"
    )]
    Twice {
        /// A place in the list.
        first: i32,
        /// The other.
        second: i32,
    },
    /// The database belongs to another list, or to another place of this one.
    #[error(
        "database {number} of the list is number {stored} of the databases of home {stored_home}; \
         the first of this list is {home}: give every replica the same list in the same order \
         (docs/scaling.md says how to go on when a home is lost for good)"
    )]
    Elsewhere {
        /// Its place in this list.
        number: i32,
        /// Its place, as it knows it.
        stored: i32,
        /// Its home, as it knows it.
        stored_home: Uuid,
        /// The id of the first database of this list.
        home: Uuid,
    },
    /// At this place there was another database.
    #[error(
        "database {number} of the list is {found}, and home knows {stored} there: give every replica the same list; if {stored} \
         is lost for good, delete its row of messaging_member at home, and every replica reads its partitions anew"
    )]
    Replaced {
        /// The place.
        number: i32,
        /// The id that home knows.
        stored: Uuid,
        /// The id of the database that was named.
        found: Uuid,
    },
    /// The list is too short.
    #[error(
        "the list has {listed} databases, and home knows {known}: partitions may have their state in one that is not named; \
         give every replica the whole list"
    )]
    Missing {
        /// How many are listed.
        listed: usize,
        /// How many home knows.
        known: usize,
    },
    /// A partition has a position where the map does not say so: the map was changed by hand, or rows were copied.
    #[error(
        "{topic}/{partition} has a position in database {found}, and belongs to database {mapped}: its state must be in one \
         database only; restore the map, or delete the partition's rows where they don't belong"
    )]
    Astray {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// A database with a position of it.
        found: i32,
        /// Where it belongs.
        mapped: i32,
    },
}

/// Who a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    id: Uuid,
    /// The home of its set, once it is in one.
    home: Option<Uuid>,
    number: Option<i32>,
}

/// The databases of one consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Databases(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    /// Every partition is in this one.
    One(PgPool),
    Many(Mapped),
}

#[derive(Debug)]
struct Mapped {
    pools: Vec<PgPool>,
    /// The places of partitions as this process first read them.
    seen: Mutex<HashMap<(String, i32), i32>>,
}

/// Why a partition's database can't be told.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Home can't be asked just now.
    Away(sqlx::Error),
    /// It is not where it was, or nowhere.
    Stop(PositionError),
}

/// One database for every partition, and no map: for a consumer that is never spread.
impl From<PgPool> for Databases {
    fn from(pool: PgPool) -> Self {
        Self(Arc::new(Kind::One(pool)))
    }
}

impl Databases {
    /// The databases of a consumer that may be spread, home first, with the runtime's tables in each ([`crate::migrate`]).
    /// A partition that has a position already stays where it is; one without gets a place when it is first taken over, the
    /// partitions in turn. After `Ok` every database knows its home and its place, durably.
    ///
    /// # Errors
    /// See [`DatabasesError`]: a list that does not fit what the databases know.
    pub async fn open(pools: Vec<PgPool>, group: &str, topic: &str) -> Result<Self, DatabasesError> {
        let home = pools.first().ok_or(DatabasesError::None)?;
        let known = identities(&pools).await?;
        check_identities(&known)?;
        let failed_at_home = |source| DatabasesError::Failed { number: 0, source };
        let members = store::join(home, &known).await.map_err(failed_at_home)?;
        check_members(&known, &members)?;
        let home_id = known.first().ok_or(DatabasesError::None)?.id;
        for (number, pool) in (0..).zip(&pools) {
            let claimed = store::claim(pool, home_id, number).await;
            claimed.map_err(|source| DatabasesError::Failed { number, source })?;
        }
        // Another process may have claimed one of them for another list meanwhile.
        check_identities(&identities(&pools).await?)?;
        let mut found = Vec::new();
        for (number, pool) in (0..).zip(&pools) {
            let partitions = store::partitions(pool, group, topic).await;
            let partitions = partitions.map_err(|source| DatabasesError::Failed { number, source })?;
            found.extend(partitions.into_iter().map(|partition| (partition, number)));
        }
        // After the positions: whoever wrote one has said before where it is.
        let mut map = store::map(home, group, topic).await.map_err(failed_at_home)?;
        for (partition, number) in &found {
            if !map.contains_key(partition) {
                let placed = store::place(home, (*partition, group, topic), *number).await;
                map.insert(*partition, placed.map_err(failed_at_home)?);
            }
        }
        check_places(topic, &found, &map)?;
        let seen = map.into_iter().map(|(partition, number)| ((topic.to_owned(), partition), number));
        let seen = Mutex::new(seen.collect());
        Ok(Self(Arc::new(Kind::Many(Mapped { pools, seen }))))
    }

    /// Closes every pool.
    pub async fn close(&self) {
        match &*self.0 {
            Kind::One(pool) => pool.close().await,
            Kind::Many(mapped) => {
                for pool in &mapped.pools {
                    pool.close().await;
                }
            }
        }
    }

    /// The database of a partition, and its place in the list.
    pub(crate) async fn of(&self, key: &PositionKey) -> Result<(i32, PgPool), Lost> {
        match &*self.0 {
            Kind::One(pool) => Ok((0, pool.clone())),
            Kind::Many(mapped) => mapped.of(key).await,
        }
    }
}

impl Mapped {
    async fn of(&self, key: &PositionKey) -> Result<(i32, PgPool), Lost> {
        let place = (key.partition, key.group.as_str(), key.topic.as_str());
        let number = match self.pools.first() {
            Some(home) => store::place(home, place, in_turn(key.partition, self.pools.len())).await,
            None => Err(sqlx::Error::PoolClosed),
        };
        let number = number.map_err(Lost::Away)?;
        let (topic, partition) = (key.topic.clone(), key.partition);
        let was = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.entry((topic.clone(), partition)).or_insert(number)
        };
        if was != number {
            return Err(Lost::Stop(PositionError::MapChanged { topic, partition, was, now: number }));
        }
        let pool = usize::try_from(number).ok().and_then(|number| self.pools.get(number)).cloned();
        let listed = self.pools.len();
        let unlisted = PositionError::UnlistedDatabase { topic, partition, number, listed };
        Ok((number, pool.ok_or(Lost::Stop(unlisted))?))
    }
}

/// Where a partition goes that is nowhere yet.
fn in_turn(partition: i32, databases: usize) -> i32 {
    partition.rem_euclid(i32::try_from(databases).unwrap_or(i32::MAX).max(1))
}

async fn identities(pools: &[PgPool]) -> Result<Vec<Identity>, DatabasesError> {
    let mut known = Vec::new();
    for (number, pool) in (0..).zip(pools) {
        let identity = store::identity(pool).await;
        known.push(identity.map_err(|source| DatabasesError::Failed { number, source })?);
    }
    Ok(known)
}

fn check_identities(known: &[Identity]) -> Result<(), DatabasesError> {
    let Some(home) = known.first() else { return Err(DatabasesError::None) };
    let mut places = HashMap::new();
    for (number, identity) in (0..).zip(known) {
        if let Some(first) = places.insert(identity.id, number) {
            return Err(DatabasesError::Twice { first, second: number });
        }
        if let (Some(stored_home), Some(stored)) = (identity.home, identity.number)
            && (stored_home, stored) != (home.id, number)
        {
            return Err(DatabasesError::Elsewhere { number, stored, stored_home, home: home.id });
        }
    }
    Ok(())
}

fn check_members(known: &[Identity], members: &BTreeMap<i32, Uuid>) -> Result<(), DatabasesError> {
    for (number, identity) in (0..).zip(known) {
        if let Some(stored) = members.get(&number).filter(|stored| **stored != identity.id) {
            return Err(DatabasesError::Replaced { number, stored: *stored, found: identity.id });
        }
    }
    if members.len() > known.len() {
        return Err(DatabasesError::Missing { listed: known.len(), known: members.len() });
    }
    Ok(())
}

fn check_places(topic: &str, found: &[(i32, i32)], map: &BTreeMap<i32, i32>) -> Result<(), DatabasesError> {
    for &(partition, found) in found {
        if let Some(&mapped) = map.get(&partition).filter(|mapped| **mapped != found) {
            return Err(DatabasesError::Astray { topic: topic.to_owned(), partition, found, mapped });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
