//! The transaction of an owner, in as few round trips as it can have.

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{Arguments, AssertSqlSafe, Connection, Execute, PgConnection, PgPool};

use crate::error::is_abort;

/// What an owner reads and writes while it handles a batch; what it wrote is durable once the runtime has committed it,
/// together with position and outputs.
///
/// A round trip to the database costs more than most statements. So a transaction is begun only by the first
/// [`Tx::writer`], and a single statement given to [`Tx::last`] is sent with the position, as a transaction of one statement.
#[derive(Debug)]
pub struct Tx {
    connection: PgConnection,
    is_begun: bool,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    select: String,
    arguments: PgArguments,
}

/// Why a transaction did not commit.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// The server said that nothing of it is there.
    RolledBack(sqlx::Error),
    /// It may be there: the answer was lost, or says nothing about it.
    Unknown(sqlx::Error),
}

impl Tx {
    /// On a connection of its own: the pool's limit is for everybody else.
    ///
    /// # Errors
    /// If no connection can be had.
    pub async fn open(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self::on(pool.acquire().await?.detach()))
    }

    /// On this connection, which is not inside a transaction.
    pub(crate) const fn on(connection: PgConnection) -> Self {
        Self { connection, is_begun: false, last: None }
    }

    /// For reading; what was written is seen. As long as nothing was, no transaction is needed around it: what the partition's
    /// owner reads, nobody else changes.
    ///
    /// # Errors
    /// If what was to be sent last is sent now, and fails.
    pub async fn reader(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if self.last.is_some() { self.writer().await } else { Ok(&mut self.connection) }
    }

    /// For writing, and for reading what was written.
    ///
    /// # Errors
    /// If the transaction can't be begun.
    pub async fn writer(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if !self.is_begun {
            sqlx::raw_sql("BEGIN").execute(&mut self.connection).await?;
            self.is_begun = true;
        }
        self.send_last().await?;
        Ok(&mut self.connection)
    }

    /// A write of which nothing is needed but that it is committed: it is sent with the position. A `SELECT` that ends with its
    /// select list, to which the runtime adds a column; its own columns are not read. It raises what must not be committed.
    ///
    /// # Errors
    /// If an argument can't be encoded, or an earlier such write, which is sent now, fails.
    pub async fn last(&mut self, mut select: Query<'_, Postgres, PgArguments>) -> Result<(), sqlx::Error> {
        if self.last.is_some() {
            self.writer().await?;
        }
        let arguments = select.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        self.last = Some(Last { select: select.sql().as_str().to_owned(), arguments });
        Ok(())
    }

    async fn send_last(&mut self) -> Result<(), sqlx::Error> {
        if let Some(Last { select, arguments }) = self.last.take() {
            sqlx::query_with(AssertSqlSafe(select), arguments).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Commits what was written, without a position: for a database that has no owner yet. It may be used again after that.
    ///
    /// # Errors
    /// If something of it can't be written.
    pub async fn finish(&mut self) -> Result<(), sqlx::Error> {
        self.send_last().await?;
        if self.is_begun {
            sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
            self.is_begun = false;
        }
        Ok(())
    }

    /// Commits, with this column as the last thing that happens. `add` adds its arguments; `column` is told how many are there.
    pub(crate) async fn commit(
        &mut self,
        column: impl FnOnce(usize) -> String,
        add: impl FnOnce(&mut PgArguments) -> Result<(), sqlx::error::BoxDynError>,
    ) -> Result<(), CommitError> {
        let Last { mut select, mut arguments } = match self.last.take() {
            Some(Last { select, arguments }) => Last { select: select + ", ", arguments },
            None => Last { select: "SELECT ".to_owned(), arguments: PgArguments::default() },
        };
        select += &column(arguments.len());
        add(&mut arguments).map_err(|error| CommitError::RolledBack(sqlx::Error::Encode(error)))?;
        let sent = sqlx::query_with(AssertSqlSafe(select), arguments).execute(&mut self.connection).await;
        if self.is_begun {
            // Nothing is committed before the server is told to.
            sent.map_err(CommitError::RolledBack)?;
            sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(unknown_unless_aborted)?;
            self.is_begun = false;
        } else {
            sent.map_err(unknown_unless_aborted)?;
        }
        Ok(())
    }

    /// Undoes what was written; `None` if the connection is of no use any more.
    pub(crate) async fn roll_back(mut self) -> Option<PgConnection> {
        let usable = if self.is_begun {
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.map(|_| ())
        } else {
            self.connection.ping().await
        };
        match usable {
            Ok(()) => Some(self.connection),
            Err(error) => {
                tracing::debug!(%error, "the connection is closed");
                None
            }
        }
    }

    /// The connection, after a commit.
    pub(crate) fn into_connection(self) -> PgConnection {
        self.connection
    }
}

/// The server refused: rolled back. Any other answer, or none: nobody knows.
fn unknown_unless_aborted(error: sqlx::Error) -> CommitError {
    if is_abort(&error) { CommitError::RolledBack(error) } else { CommitError::Unknown(error) }
}
