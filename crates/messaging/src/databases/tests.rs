use std::collections::BTreeMap;

use uuid::Uuid;

use super::{DatabasesError, Identity, check_identities, check_members, check_places, in_turn};

fn fresh(id: u128) -> Identity {
    Identity { id: Uuid::from_u128(id), home: None, number: None }
}

fn member(id: u128, home: u128, number: i32) -> Identity {
    Identity { home: Some(Uuid::from_u128(home)), number: Some(number), ..fresh(id) }
}

#[test]
fn a_list_that_is_not_the_one_the_databases_know_is_refused_by_name() {
    assert!(check_identities(&[fresh(1), fresh(2)]).is_ok());
    assert!(check_identities(&[member(1, 1, 0), member(2, 1, 1), fresh(3)]).is_ok(), "one more");
    assert!(matches!(check_identities(&[]), Err(DatabasesError::None)));
    let twice = check_identities(&[fresh(1), fresh(2), fresh(1)]);
    assert!(matches!(twice, Err(DatabasesError::Twice { first: 0, second: 2 })), "{twice:?}");
    for (list, place) in [
        (vec![member(2, 1, 1), member(1, 1, 0)], 0),
        (vec![member(2, 1, 1)], 0),
        (vec![fresh(3), member(2, 1, 1)], 1),
        (vec![member(1, 1, 0), member(3, 1, 2), member(2, 1, 1)], 1),
    ] {
        let refused = check_identities(&list);
        assert!(
            matches!(refused, Err(DatabasesError::Elsewhere { number, .. }) if number == place),
            "{list:?}: {refused:?}"
        );
    }
}

#[test]
fn a_database_that_is_missing_or_another_one_is_refused_by_name() {
    let members: BTreeMap<i32, Uuid> = [(0, Uuid::from_u128(1)), (1, Uuid::from_u128(2))].into();
    assert!(check_members(&[member(1, 1, 0), member(2, 1, 1)], &members).is_ok());
    let short = check_members(&[member(1, 1, 0)], &members);
    assert!(matches!(short, Err(DatabasesError::Missing { listed: 1, known: 2 })), "{short:?}");
    let other = check_members(&[member(1, 1, 0), fresh(3)], &members);
    assert!(matches!(other, Err(DatabasesError::Replaced { number: 1, .. })), "{other:?}");
}

#[test]
fn a_position_outside_its_partitions_database_is_refused_by_name() {
    let map = BTreeMap::from([(0, 0), (1, 1)]);
    assert!(check_places("t", &[(0, 0), (1, 1)], &map).is_ok());
    let astray = check_places("t", &[(0, 0), (1, 1), (1, 0)], &map);
    assert!(
        matches!(astray, Err(DatabasesError::Astray { partition: 1, found: 0, mapped: 1, .. })),
        "{astray:?}"
    );
}

#[test]
fn partitions_go_to_the_databases_in_turn() {
    assert_eq!((0..5).map(|partition| in_turn(partition, 2)).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
    assert_eq!(in_turn(3, 1), 0);
}
