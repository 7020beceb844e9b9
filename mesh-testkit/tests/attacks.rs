//! `docs/ATTACKS.md` speaks of the attacks that are tried, of all of them and of no others.

use mesh_testkit::smuggling::{cases, floods::FLOODS};

#[test]
fn the_document_has_a_row_for_each_attack_in_its_order() {
    let document = include_str!("../../docs/ATTACKS.md");
    let rows = document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (name, rfc) = (cells.next()?, cells.next()?);
        (name != "case").then_some((name, rfc))
    });
    let rows: Vec<_> = rows.collect();
    let messages = cases::all().map(|case| (case.name, case.rfc));
    let floods = FLOODS.iter().map(|flood| (flood.name, flood.rfc));
    assert_eq!(rows, messages.chain(floods).collect::<Vec<_>>());
}
