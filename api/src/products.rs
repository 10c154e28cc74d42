//! The catalogue: reading it, and what admins do to it.

pub(crate) mod admin;
pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod list;
pub(crate) mod model;
pub(crate) mod read;
pub(crate) mod store;
pub(crate) mod validate;
