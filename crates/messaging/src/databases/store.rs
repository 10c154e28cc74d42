//! SQL about a set of databases: who is who, and where each partition is.

use std::collections::BTreeMap;

use sqlx::{PgPool, Row};

use super::Identity;

/// Who this database is; it gets an identity when it is first asked.
pub(super) async fn identity(pool: &PgPool) -> Result<Identity, sqlx::Error> {
    sqlx::query("INSERT INTO messaging_database (id) VALUES (gen_random_uuid()) ON CONFLICT DO NOTHING")
        .execute(pool)
        .await?;
    let row = sqlx::query("SELECT id, home_id, number FROM messaging_database").fetch_one(pool).await?;
    Ok(Identity { id: row.try_get("id")?, home: row.try_get("home_id")?, number: row.try_get("number")? })
}

/// Tells the home who is at which place of the list; who is there already stays. Returns all of them.
pub(super) async fn join(
    home: &PgPool,
    known: &[Identity],
) -> Result<BTreeMap<i32, uuid::Uuid>, sqlx::Error> {
    for (number, identity) in (0..).zip(known) {
        sqlx::query(
            "INSERT INTO messaging_member (number, database_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind::<i32>(number)
        .bind(identity.id)
        .execute(home)
        .await?;
    }
    let rows = sqlx::query("SELECT number, database_id FROM messaging_member").fetch_all(home).await?;
    rows.iter().map(|row| Ok((row.try_get("number")?, row.try_get("database_id")?))).collect()
}

/// Tells a database where it belongs, unless it knows.
pub(super) async fn claim(pool: &PgPool, home: uuid::Uuid, number: i32) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE messaging_database SET home_id = $1, number = $2 WHERE home_id IS NULL")
        .bind(home)
        .bind(number)
        .execute(pool)
        .await?;
    Ok(())
}

/// Partitions that have a position in this database.
pub(super) async fn partitions(pool: &PgPool, group: &str, topic: &str) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT partition_id FROM messaging_position WHERE consumer_group = $1 AND topic = $2")
        .bind(group)
        .bind(topic)
        .fetch_all(pool)
        .await
}

/// The whole map of a consumer.
pub(super) async fn map(home: &PgPool, group: &str, topic: &str) -> Result<BTreeMap<i32, i32>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT partition_id, number FROM messaging_map WHERE consumer_group = $1 AND topic = $2",
    )
    .bind(group)
    .bind(topic)
    .fetch_all(home)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("partition_id")?, row.try_get("number")?))).collect()
}

/// Where a partition is; `number` if nobody has said so before, and from then on.
pub(super) async fn place(
    home: &PgPool,
    (partition, group, topic): (i32, &str, &str),
    number: i32,
) -> Result<i32, sqlx::Error> {
    sqlx::query(
        "INSERT INTO messaging_map (partition_id, consumer_group, topic, number) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(partition)
    .bind(group)
    .bind(topic)
    .bind(number)
    .execute(home)
    .await?;
    // In a statement of its own: a row that another process has just committed is not in the snapshot of the one before.
    sqlx::query_scalar(
        "SELECT number FROM messaging_map WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3",
    )
    .bind(partition)
    .bind(group)
    .bind(topic)
    .fetch_one(home)
    .await
}
