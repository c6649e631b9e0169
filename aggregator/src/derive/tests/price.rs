//! What calls cost whose records say only together what the cost depends on.

use fleetlog_pricing::PriceTable;
use fleetlog_store::derived::{Repricing, Sighting};

use super::{NOON, SECOND, call_of, calls, merge, prices, sighting};

/// 100,000 uncached tokens of gpt-5, billionths of a dollar.
const COST: i64 = 125_000_000;

fn tokens(n: u32, channel: &str) -> Sighting {
    Sighting { out_visible: 0, ..call_of(n, channel, "req", 100_000) }
}

fn cost_of(sightings: &[Sighting]) -> (Option<i64>, String) {
    let mut found = calls(sightings);
    assert_eq!(found.len(), 1);
    let call = found.remove(0);
    (call.cost_computed, call.price_version)
}

fn shipped() -> String {
    PriceTable::built_in().unwrap().versions().next().unwrap().to_owned()
}

#[test]
fn tokens_of_one_channel_are_priced_by_the_model_that_another_names() {
    let named = Sighting {
        llm_call_key: "req".to_owned(),
        model: "gpt-5".to_owned(),
        ..sighting(2, "transcript", "llm.request")
    };
    assert_eq!(cost_of(&[tokens(1, "agent_log")]), (None, String::new()));
    assert_eq!(cost_of(&[tokens(1, "agent_log"), named.clone()]), (Some(COST), shipped()));
    let tier = Sighting { service_tier: "batch".to_owned(), ..named.clone() };
    assert_eq!(cost_of(&[tokens(1, "agent_log"), tier]).0, Some(COST / 2));
    let unknown = Sighting { model: "some-local-model".to_owned(), ..named };
    assert_eq!(cost_of(&[tokens(1, "agent_log"), unknown]).0, None);
}

#[test]
fn how_long_cache_writes_are_kept_is_taken_from_whoever_tells_of_the_same_number() {
    let writes = |n: u32, channel: &str, short: u64, long: u64| Sighting {
        model: "claude-sonnet-4-5".to_owned(),
        provider: "anthropic".to_owned(),
        cache_write_5m: short,
        cache_write_1h: long,
        ..super::call_of(n, channel, "req", 100)
    };
    let log = Sighting { cost_computed: Some(1), ..writes(1, "agent_log", 40, 0) };
    let transcript = writes(2, "transcript", 25, 15);
    let told = calls(&[log.clone(), transcript.clone()]);
    assert_eq!((told.len(), told[0].cache_write_5m, told[0].cache_write_1h), (1, 25, 15));
    assert_eq!(told[0].channel, "agent_log");
    assert_eq!(told[0].cost_computed, cost_of(&[transcript]).0, "priced anew");
    // Another number of writes is another story, of which the better channel's holds.
    let told = calls(&[log, writes(2, "transcript", 25, 16)]);
    assert_eq!((told[0].cache_write_5m, told[0].cache_write_1h, told[0].cost_computed), (40, 0, Some(1)));
}

#[test]
fn what_the_processor_computed_for_the_usage_that_counts_stays() {
    let priced = Sighting {
        model: "gpt-5".to_owned(),
        cost_computed: Some(7),
        price_version: "then".to_owned(),
        ..tokens(1, "agent_log")
    };
    let reported = Sighting { cost_reported: Some(9), ..tokens(2, "span") };
    assert_eq!(cost_of(&[priced.clone(), reported.clone()]), (Some(7), "then".to_owned()));
    assert_eq!(calls(&[priced.clone(), reported])[0].cost_reported, Some(9));
    // Carried by a lesser channel, it is taken for the same usage and no other.
    let lesser = Sighting { channel: "span".to_owned(), ..priced.clone() };
    assert_eq!(cost_of(&[lesser.clone(), tokens(2, "agent_log")]), (Some(7), "then".to_owned()));
    let other = Sighting { out_visible: 1000, ..tokens(2, "agent_log") };
    assert_eq!(cost_of(&[lesser, other]), (Some(COST + 10_000_000), shipped()));
}

#[test]
fn a_piece_keeps_its_cost_only_while_no_other_piece_changes_what_it_depends_on() {
    let piece = |revision: i64, of: Sighting| Sighting { revision, ..of };
    let priced = Sighting {
        model: "gpt-5".to_owned(),
        cost_computed: Some(7),
        price_version: "then".to_owned(),
        ..tokens(1, "api")
    };
    let name = |model: &str| Sighting {
        llm_call_key: "req".to_owned(),
        model: model.to_owned(),
        ..sighting(2, "api", "llm.request")
    };
    let seen = [piece(1, priced.clone()), piece(2, name("gpt-5"))];
    assert_eq!(cost_of(&seen), (Some(7), "then".to_owned()));
    let seen = [piece(1, priced.clone()), piece(2, name("gpt-5-mini"))];
    assert_eq!(cost_of(&seen), (Some(COST / 5), shipped()));
    // Tokens that were replaced take their cost along.
    let more = Sighting { in_uncached: 200_000, ..tokens(3, "api") };
    assert_eq!(cost_of(&[piece(1, priced), piece(2, more)]), (Some(2 * COST), shipped()));
}

#[test]
fn the_increase_of_a_running_total_is_priced_unless_its_calls_may_have_been_long_ones() {
    let total = |n: u32, model: &str, input: u64| Sighting {
        usage_role: "cumulative".to_owned(),
        model: model.to_owned(),
        in_uncached: input,
        ..tokens(n, "agent_log")
    };
    let costs = |model: &str| -> Vec<Option<i64>> {
        let found = calls(&[total(1, model, 100_000), total(2, model, 200_000), total(3, model, 500_000)]);
        found.iter().map(|call| call.cost_computed).collect()
    };
    assert_eq!(costs("gpt-5"), [Some(COST), Some(COST), Some(3 * COST)]);
    assert_eq!(costs("gemini-2.5-pro"), [Some(COST), Some(COST), None]);
}

#[test]
fn a_repriced_call_costs_what_the_last_repricing_says_that_has_a_price_for_it() {
    let sheet = |version: &str, model: &str, input: f64| {
        format!(
            "version=\"{version}\"\nsource=\"\"\nlicence=\"\"\n[[price]]\nmodel=\"{model}\"\ninput={input:?}\noutput=0.0\n"
        )
    };
    let repricing = |at: i64, version: &str, model: &str, input: f64| Repricing {
        repriced_at: at,
        model: "gpt-*".to_owned(),
        from_time: NOON,
        until_time: NOON + 10 * SECOND,
        sheets: vec![sheet(version, model, input)],
        ..Repricing::default()
    };
    let of = |n: u32, model: &str| Sighting {
        model: model.to_owned(),
        cost_computed: Some(7),
        price_version: "then".to_owned(),
        ..call_of(n, "agent_log", "req", 100_000)
    };
    let cost = |repricings: Vec<Repricing>, project: &str, call: Sighting| {
        let prices = prices().with(repricings).unwrap();
        let seen = [call];
        let mut found = super::super::calls::calls(
            &prices.of_project(project),
            &merge::distinct(&seen),
            &super::Starts::default(),
            &super::Past::default(),
        );
        let call = found.remove(0);
        (call.cost_computed.unwrap(), call.price_version)
    };
    let (first, second) = (repricing(1, "first", "gpt-5", 1.0), repricing(2, "second", "gpt-5", 2.0));
    let then = (7, "then".to_owned());
    assert_eq!(cost(vec![first.clone()], "p", of(1, "gpt-5")), (100_000_000, "first".to_owned()));
    let both = vec![second.clone(), first.clone()];
    assert_eq!(cost(both, "p", of(1, "gpt-5")), (200_000_000, "second".to_owned()));
    // Without a price there it says nothing; nor of other models, times and projects.
    let other = repricing(3, "third", "gpt-6", 3.0);
    assert_eq!(cost(vec![other, first.clone()], "p", of(1, "gpt-5")).1, "first");
    assert_eq!(cost(vec![first.clone()], "p", of(1, "o3")), then);
    assert_eq!(cost(vec![first.clone()], "p", of(10, "gpt-5")), then);
    let elsewhere = Repricing { project_id: "q".to_owned(), ..first };
    assert_eq!(cost(vec![elsewhere.clone()], "p", of(1, "gpt-5")), then);
    assert_eq!(cost(vec![elsewhere], "q", of(1, "gpt-5")).1, "first");
}
