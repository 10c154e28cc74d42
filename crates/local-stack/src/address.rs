//! Addresses of servers.

/// `scheme://authority/whatever?options` with another database.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (base, options) = match url.split_once('?') {
        Some((base, options)) => (base, Some(options)),
        None => (url, None),
    };
    let after_scheme = base.find("://").map_or(0, |at| at + 3);
    let authority_end = base.get(after_scheme..).and_then(|rest| rest.find('/')).map(|at| at + after_scheme);
    let authority = authority_end.and_then(|end| base.get(..end)).unwrap_or(base);
    match options {
        Some(options) => format!("{authority}/{database}?{options}"),
        None => format!("{authority}/{database}"),
    }
}

/// The address as it may be shown.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let shown = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{shown}")
}

#[cfg(test)]
mod tests {
    use super::{with_database, without_password};

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        assert_eq!(
            with_database("postgres://u:p@h:5/x?sslmode=require", "api"),
            "postgres://u:p@h:5/api?sslmode=require"
        );
        assert_eq!(with_database("postgres://h", "api"), "postgres://h/api");
        assert_eq!(with_database("postgres://h/", "api"), "postgres://h/api");
    }

    #[test]
    fn a_shown_address_has_no_password() {
        assert_eq!(without_password("postgres://u:secret@h:5/x"), "postgres://h:5/x");
        assert_eq!(without_password("h:9092,i:9092"), "h:9092,i:9092");
    }
}
