//! Who calls: bearer tokens, roles. No header other than `Authorization` says who somebody is.

mod keys;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use domain_types::CustomerId;

pub use keys::KeysError;
pub(crate) use keys::{Expectations, Keys};

use crate::edge::Visit;
use crate::notices::MailAddress;
use crate::problem::Problem;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) id: CustomerId,
    pub(crate) customer: bool,
    pub(crate) admin: bool,
    /// Where mail reaches them, if the token says so.
    pub(crate) mail: Option<MailAddress>,
}

/// A caller with the role `customer` who wants something sent.
#[derive(Debug, Clone)]
pub(crate) struct Buyer {
    pub(crate) id: CustomerId,
    pub(crate) mail: Option<MailAddress>,
}

/// A caller with the role `customer`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Customer(pub(crate) CustomerId);

/// A caller with the role `admin`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin(pub(crate) CustomerId);

fn caller<S>(parts: &Parts, state: &S) -> Result<Caller, Problem>
where
    Keys: FromRef<S>,
{
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let missing = || Problem::unauthorized("a bearer token is required", "Bearer");
    let value = values.next().ok_or_else(missing)?;
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|_| values.next().is_none())
        .ok_or_else(missing)?;
    let caller = Keys::from_ref(state).verify(token).map_err(|refusal| {
        tracing::debug!(%refusal, "token refused");
        Problem::unauthorized(refusal.to_string(), "Bearer error=\"invalid_token\"")
    })?;
    match parts.extensions.get::<Visit>() {
        Some(visit) => visit.is_of(caller.id).map(|()| caller),
        None => Ok(caller),
    }
}

fn forbidden(role: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("this needs the role {role}"))
}

impl<S: Send + Sync> FromRequestParts<S> for Customer
where
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = caller(parts, state)?;
        if caller.customer { Ok(Self(caller.id)) } else { Err(forbidden("customer")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Buyer
where
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = caller(parts, state)?;
        if caller.customer {
            Ok(Self { id: caller.id, mail: caller.mail })
        } else {
            Err(forbidden("customer"))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin
where
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = caller(parts, state)?;
        if caller.admin { Ok(Self(caller.id)) } else { Err(forbidden("admin")) }
    }
}
