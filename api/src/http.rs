//! What every route shares: request context, bodies, query strings, cursors.

pub(crate) mod body;
pub(crate) mod conditional;
pub(crate) mod context;
pub(crate) mod cursor;
pub(crate) mod fields;
pub(crate) mod query;
