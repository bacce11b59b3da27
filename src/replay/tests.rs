//! Cells computed by hand: hits, fills, refusals, evictions and expiries; and the plans of cells.

use super::*;

const MACHINE_BYTES: u64 = 16 << 30;

fn trace(lines: &str) -> Trace {
    parse(lines.as_bytes()).expect("a trace")
}

fn plan(trace: &Trace, amounts: &[Amount], count: Count) -> Plan {
    Plan::new(trace, &[Eviction::Fifo], amounts, count, None, MACHINE_BYTES).expect("it fits")
}

fn outcome(lines: &str, user_bytes: u64) -> Outcome {
    let trace = trace(lines);
    let plan = plan(&trace, &[Amount::Bytes(user_bytes)], Count::User);
    run(&trace, &plan, &plan.cells[0], &mut |_| ()).expect("memory")
}

#[test]
fn a_miss_is_followed_by_a_fill() {
    let outcome = outcome("0,a,100\n1,a,100\n2,b,50\n3,a,100\n", 1000);
    assert_eq!((outcome.gets, outcome.hits, outcome.get_bytes, outcome.hit_bytes), (4, 2, 350, 200));
    assert_eq!((outcome.items, outcome.user_bytes, outcome.evictions), (2, 150, 0));
}

#[test]
fn sets_store_and_deletes_remove_and_neither_counts() {
    let outcome = outcome("0,a,100,0,set\n1,a,100,0,get\n2,a,0,0,delete\n3,a,100,0,get\n", 1000);
    assert_eq!((outcome.gets, outcome.hits, outcome.items), (2, 1, 1));
}

#[test]
fn what_is_filled_expires() {
    let outcome = outcome("0,a,100,10\n9,a,100,10\n11,a,100,10\n20,a,100,0\n", 1000);
    assert_eq!((outcome.hits, outcome.expired), (2, 1), "it was filled again at 11, for 10 seconds");
}

#[test]
fn user_bytes_are_the_limit() {
    let outcome = outcome("0,a,100\n1,b,100\n2,c,100\n3,b,100\n4,a,100\n", 250);
    assert_eq!((outcome.hits, outcome.evictions, outcome.user_bytes), (1, 2, 200));
    assert!(outcome.user_bytes_mean <= 250.0);
}

#[test]
fn an_item_over_the_limit_is_refused_and_replaces_nothing() {
    let outcome = outcome("0,a,100\n1,a,300,0,set\n2,a,100\n3,a,300\n", 250);
    assert_eq!((outcome.hits, outcome.refused, outcome.items), (1, 1, 1), "the old value was stale after the set");
}

#[test]
fn progress_adds_up() {
    let lines: String = (0..40_000).map(|i| format!("{i},k{},20\n", i % 99)).collect();
    let trace = trace(&lines);
    let plan = plan(&trace, &[Amount::Percent(50.0)], Count::User);
    let mut told = Vec::new();
    run(&trace, &plan, &plan.cells[0], &mut |requests| told.push(requests)).expect("memory");
    assert_eq!(told.iter().sum::<u64>(), 40_000);
    assert!(told.len() > 2);
}

#[test]
fn parts_of_a_footprint() {
    let lines: String = (0..1000).map(|i| format!("{i},key{i},100000\n")).collect();
    let trace = trace(&lines);
    let amounts = ["0.5%", "1%", "10%", "6"].map(|text| text.parse().expect("an amount"));
    let capacities = |plan: &Plan| plan.cells.iter().map(|c| c.capacity_bytes).collect::<Vec<_>>();

    let user = plan(&trace, &amounts, Count::User);
    assert_eq!((user.scale, user.footprint_bytes), (1, 100_000_000));
    assert_eq!(capacities(&user), [1_000_000, 1_000_000, 10_000_000, 6 << 20], "room for ten items at least");
    let real = plan(&trace, &amounts, Count::Real);
    assert_eq!(capacities(&real), [10_000_000, 6 << 20]);
    assert_eq!(real.left_out.len(), 2);
    assert_eq!(real.left_out[0].1.to_string(), "0.5% is 976.6KiB; allowed: 4MiB and more, or --count user");

    let refused = Plan::new(&trace, &[Eviction::Fifo], &[Amount::Bytes(1 << 20)], Count::Real, None, MACHINE_BYTES);
    assert_eq!(refused.unwrap_err().to_string(), "1MiB is 1MiB; allowed: 4MiB and more, or --count user");
}

#[test]
fn what_does_not_fit_is_scaled() {
    let lines: String = (0..100).map(|i| format!("{i},key{i},1000000000\n")).collect();
    let trace = trace(&lines);
    let amounts = [Amount::Percent(50.0), Amount::Bytes(64 << 30)];
    let planned = plan(&trace, &amounts, Count::User);
    assert_eq!((planned.scale, planned.footprint_bytes), (16, 6_250_000_000));
    assert_eq!(planned.cells[1].capacity_bytes, 4 << 30);
    assert!(planned.cells.iter().all(|cell| cell.memory_bytes() <= MACHINE_BYTES));

    let at = |scale| Plan::new(&trace, &[Eviction::Fifo], &amounts, Count::Real, Some(scale), MACHINE_BYTES);
    assert_eq!(at(5).unwrap().footprint_bytes, 20_000_000_000);
    let refusal = at(1).unwrap_err().to_string();
    assert!(refusal.starts_with("50% needs 46.6GiB of memory at scale 1, of 16GiB allowed"), "{refusal}");
}

#[test]
fn amounts_as_they_are_written() {
    let amount = |text: &str| text.parse::<Amount>();
    assert_eq!(amount("64"), Ok(Amount::Bytes(64 << 20)));
    assert_eq!(amount("1GiB"), Ok(Amount::Bytes(1 << 30)));
    assert_eq!(amount("0.1%"), Ok(Amount::Percent(0.1)));
    for text in ["0%", "-1%", "nan%", "1001%", "%", "x", "0", "-1"] {
        assert!(amount(text).is_err_and(|e| e.contains("allowed")), "{text}");
    }
    assert_eq!(["64", "0.1%", "1536m"].map(|text| amount(text).unwrap().to_string()), ["64MiB", "0.1%", "1536MiB"]);
}
