//! Orders: submitting, reading, and the requests that a saga may refuse.

pub(crate) mod events;
pub(crate) mod follow;
pub(crate) mod live;
pub(crate) mod model;
pub(crate) mod prefer;
pub(crate) mod read;
pub(crate) mod requests;
pub(crate) mod store;
pub(crate) mod submit;
pub(crate) mod validate;
