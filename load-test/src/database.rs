//! A database of one's own on the running system's server.

use anyhow::Context;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use crate::endpoints::Endpoints;

/// A database that nobody else uses, with a name that begins with `load_test_`.
pub(crate) struct OwnDatabase {
    server: String,
    name: String,
    /// Where it is, for connections beside the pool's.
    pub(crate) url: String,
    pub(crate) pool: PgPool,
}

impl OwnDatabase {
    /// Makes it, and in it what `schema` says; as many connections as are asked for, all made at once.
    pub(crate) async fn make(
        endpoints: &Endpoints,
        schema: &'static str,
        connections: u32,
    ) -> anyhow::Result<Self> {
        let name = format!("load_test_{}", Uuid::new_v4().simple());
        // Every PostgreSQL has this one.
        let server = endpoints.database("postgres")?;
        let mut admin =
            PgConnection::connect(&server).await.context("no database can be made on PostgreSQL")?;
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        admin.close().await?;
        let url = endpoints.database(&name)?;
        let options = PgPoolOptions::new().min_connections(connections).max_connections(connections);
        let pool = options.connect(&url).await?;
        sqlx::raw_sql(schema).execute(&pool).await?;
        Ok(Self { server, name, url, pool })
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        self.pool.close().await;
        let mut admin = PgConnection::connect(&self.server).await?;
        admin.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await?;
        Ok(admin.close().await?)
    }
}
