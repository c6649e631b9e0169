use proptest::prelude::*;

use super::*;

fn call(model: &str) -> AgentEvent {
    AgentEvent {
        usage_role: UsageRole::Call,
        token_basis: TokenBasis::Inclusive,
        model: model.into(),
        timestamp: 1_795_264_656_000_000_000,
        ..AgentEvent::default()
    }
}

fn built_in() -> &'static PriceTable {
    static TABLE: std::sync::LazyLock<PriceTable> =
        std::sync::LazyLock::new(|| PriceTable::built_in().unwrap());
    &TABLE
}

fn priced(table: &PriceTable, mut event: AgentEvent) -> Result<i64, Unpriced> {
    match table.enrich(&mut event) {
        None => Ok(event.cost_computed.unwrap().0),
        Some(why) => Err(why),
    }
}

/// A table with the entries given.
fn table(entries: &str) -> Result<PriceTable, PriceError> {
    built_in().clone().preferring(&format!("version=\"own\"\nsource=\"s\"\nlicence=\"l\"\n{entries}"))
}

fn million(model: &str) -> AgentEvent {
    AgentEvent { in_uncached: 100_000, ..call(model) }
}

#[test]
fn a_recorded_claude_call_costs_what_the_client_said() {
    let mut event = AgentEvent {
        in_uncached: 21,
        out_visible: 17,
        cache_write_5m: 300,
        cache_read: 4000,
        ..call("claude-sonnet-4-5")
    };
    let prices = built_in();
    assert_eq!(prices.enrich(&mut event), None);
    assert_eq!(event.cost_computed, Some(NanoUsd(2_643_000)));
    assert_eq!(prices.versions().collect::<Vec<_>>(), [event.price_version.as_str()]);
}

#[test]
fn recorded_codex_calls_cost_what_the_list_says() {
    let each = AgentEvent {
        in_uncached: 200,
        cache_read: 1_000,
        out_visible: 30,
        out_reasoning: 20,
        provider: "openai".into(),
        ..call("gpt-5-2025-08-07")
    };
    assert_eq!(priced(built_in(), each), Ok(875_000));
}

#[test]
fn hour_long_cache_writes_cost_more_than_short_ones() {
    let short = AgentEvent { cache_write_5m: 1_000, ..call("claude-opus-4-5") };
    let long = AgentEvent { cache_write_1h: 1_000, ..call("claude-opus-4-5") };
    assert_eq!((priced(built_in(), short), priced(built_in(), long)), (Ok(6_250_000), Ok(10_000_000)));
}

#[test]
fn reasoning_has_its_own_rate_where_there_is_one() {
    let thought = |model: &str| AgentEvent { out_visible: 1_000, out_reasoning: 1_000, ..call(model) };
    assert_eq!(priced(built_in(), thought("sonar-deep-research")), Ok(8_000_000 + 3_000_000));
    assert_eq!(priced(built_in(), thought("gpt-5")), Ok(20_000_000));
}

#[test]
fn a_long_context_is_charged_by_its_own_rates() {
    for (model, below, above) in
        [("gemini-2.5-pro", 250_000_000, 500_002_500), ("claude-sonnet-4-5", 600_000_000, 1_200_006_000)]
    {
        assert_eq!(priced(built_in(), AgentEvent { in_uncached: 200_000, ..call(model) }), Ok(below));
        // The whole input counts, cached tokens too.
        let mixed = AgentEvent { in_uncached: 200_001, ..call(model) };
        assert_eq!(priced(built_in(), mixed), Ok(above));
    }
    let cached = AgentEvent { in_uncached: 1, cache_read: 272_000, ..call("gpt-5.5") };
    assert_eq!(priced(built_in(), cached), Ok(10_000 + 272_000_000));
}

#[test]
fn service_tiers_have_their_own_rates_and_an_unknown_one_has_no_price() {
    let tier = |model: &str, tokens: u64, data: &str| {
        let event = AgentEvent { in_uncached: tokens, data: data.into(), ..call(model) };
        priced(built_in(), event)
    };
    assert_eq!(tier("gpt-5", 1_000, r#"{"service_tier":"default"}"#), Ok(1_250_000));
    assert_eq!(tier("gpt-5", 1_000, r#"{"service_tier":"batch"}"#), Ok(625_000));
    assert_eq!(tier("gpt-5", 1_000, r#"{"service_tier":"priority"}"#), Ok(2_500_000));
    assert_eq!(tier("gpt-5.5", 1_000, r#"{"service_tier":"priority"}"#), Ok(12_500_000));
    assert_eq!(tier("gpt-5.5", 300_000, r#"{"service_tier":"flex"}"#), Ok(1_500_000_000));
    assert_eq!(tier("gpt-5.5", 300_000, r#"{"service_tier":"priority"}"#), Err(Unpriced::UnknownTier));
    assert_eq!(tier("claude-opus-5", 1_000, r#"{"speed":"fast"}"#), Ok(10_000_000));
    assert_eq!(tier("claude-opus-5", 1_000, r#"{"usage":{"inference_geo":"us"}}"#), Ok(5_500_000));
    assert_eq!(
        tier("claude-opus-5", 1_000, r#"{"usage":{"inference_geo":"mars"}}"#),
        Err(Unpriced::UnknownTier)
    );
    assert_eq!(tier("claude-haiku-4-5", 1_000, r#"{"service_tier":"scale"}"#), Err(Unpriced::UnknownTier));
}

#[test]
fn terms_become_columns_of_whatever_may_be_part_of_a_call() {
    let of = |event_type: EventType, revision: i64| {
        let data = r#"{"body":{"modelParameters":{"service_tier":"Flex"}},"usage":{"inference_geo":"us"}}"#;
        let mut event = AgentEvent { event_type, revision, data: data.into(), ..AgentEvent::default() };
        assert_eq!(built_in().enrich(&mut event), None);
        (event.service_tier, event.inference_geo)
    };
    let terms = ("flex".to_owned(), "us".to_owned());
    assert_eq!(of(EventType::LlmRequest, 0), terms);
    assert_eq!(of(EventType::Span, 5), terms);
    assert_eq!(of(EventType::Span, 0), Default::default());
    assert_eq!(of(EventType::UserPrompt, 0), Default::default());
}

#[test]
fn a_sum_of_calls_is_priced_only_below_the_rates_of_long_ones() {
    let sum = |tokens: u64| {
        let event = AgentEvent { in_uncached: tokens, ..call("gemini-2.5-pro") };
        built_in().cost(&Usage { is_sum: true, ..Usage::of(&event) }).map(|(cost, _)| cost.0)
    };
    assert_eq!(sum(200_000), Ok(250_000_000));
    assert_eq!(sum(200_001), Err(Unpriced::UnknownLength));
}

#[test]
fn prices_change_with_time_and_with_the_hour() {
    let at = |model: &str, timestamp: i64| priced(built_in(), AgentEvent { timestamp, ..million(model) });
    let june_10_2025 = 1_749_513_600_000_000_000;
    assert_eq!(at("o3", june_10_2025 - 1), Ok(1_000_000_000));
    assert_eq!(at("o3", june_10_2025), Ok(200_000_000));
    let midnight = 1_795_219_200_000_000_000;
    let hour = NANOS_PER_HOUR;
    assert_eq!(at("deepseek-v4-pro", midnight), Ok(66_000_000));
    assert_eq!(at("deepseek-v4-pro", midnight + hour), Ok(132_000_000));
    assert_eq!(at("deepseek-v4-pro", midnight + 4 * hour), Ok(66_000_000));
}

#[test]
fn outside_its_validity_a_price_does_not_hold() {
    let entry = "[[price]]\nmodel=\"m\"\nfrom=\"2026-01-01\"\nuntil=\"2026-02-01\"\ninput=2.0\noutput=0.0\n";
    let prices = table(entry).unwrap();
    let at = |timestamp| priced(&prices, AgentEvent { timestamp, ..million("m") });
    let (from, until) = (1_767_225_600_000_000_000, 1_769_904_000_000_000_000);
    assert_eq!((at(from - 1), at(until)), (Err(Unpriced::NoPriceThen), Err(Unpriced::NoPriceThen)));
    assert_eq!((at(from), at(until - 1)), (Ok(200_000_000), Ok(200_000_000)));
}

#[test]
fn nothing_is_guessed() {
    let prices = built_in();
    let why = |event: AgentEvent| priced(prices, event).unwrap_err();
    assert_eq!(why(million("some-local-model")), Unpriced::UnknownModel);
    assert_eq!(why(million("gpt-5-ultra")), Unpriced::UnknownModel);
    assert_eq!(why(million("")), Unpriced::NoModel);
    assert_eq!(why(million("groq/glm-4.6")), Unpriced::OtherHost);
    assert_eq!(why(AgentEvent { provider: "ollama".into(), ..million("glm-4.6") }), Unpriced::OtherHost);
    assert_eq!(why(AgentEvent { token_basis: TokenBasis::None, ..call("gpt-5") }), Unpriced::NoTokens);
    let total = AgentEvent { token_basis: TokenBasis::Guessed, channel: Channel::Api, ..million("gpt-5") };
    assert_eq!(why(total), Unpriced::NoTokens);
    assert_eq!(why(AgentEvent { in_uncached: u64::MAX, ..call("gpt-5") }), Unpriced::Absurd);
    let mut rollup = AgentEvent { usage_role: UsageRole::Rollup, ..million("gpt-5") };
    assert_eq!((prices.enrich(&mut rollup), rollup.cost_computed), (None, None));
}

#[test]
fn a_free_variant_of_a_known_model_costs_nothing() {
    assert_eq!(priced(built_in(), million("openrouter/openai/gpt-5:free")), Ok(0));
    assert_eq!(priced(built_in(), million("acme/unheard-of:free")), Err(Unpriced::UnknownModel));
}

#[test]
fn an_operators_price_holds_before_the_one_that_ships_and_the_cost_names_its_table() {
    let entries = "[[price]]\nmodel=\"gpt-5\"\nfrom=\"2026-01-01\"\ninput=1.0\noutput=1.0\n\
                   [[price]]\nmodel=\"Acme-1\"\naliases=[\"acme-one\"]\ninput=3\noutput=0.5\n";
    let prices = table(entries).unwrap();
    let version = |mut event: AgentEvent| {
        assert_eq!(prices.enrich(&mut event), None);
        (event.cost_computed.unwrap().0, event.price_version)
    };
    assert_eq!(version(million("gpt-5")), (100_000_000, "own".to_owned()));
    assert_eq!(version(million("acme-one")), (300_000_000, "own".to_owned()));
    assert_eq!(version(million("gpt-5-mini")).0, 25_000_000);
    let before = AgentEvent { timestamp: 1_760_000_000_000_000_000, ..million("gpt-5") };
    assert_eq!(version(before).0, 125_000_000, "before the operator's price the other one holds");
}

#[test]
fn a_broken_table_names_line_and_field() {
    let problem = |entries: &str| table(entries).unwrap_err().to_string();
    let entry = |rest: &str| format!("[[price]]\nmodel=\"m\"\n{rest}");
    assert_eq!(
        problem(&entry("input=-1.0\noutput=0.0")),
        "line 4: the price of m: input is negative or absurd"
    );
    assert!(problem(&entry("input=1.0\noutput=1.0\nfrom=\"soon\"")).contains("m: from is no date"));
    assert!(
        problem(&entry("input=1.0\noutput=1.0\ntiers={batch={input=-2.0}}")).contains("tiers.batch.input")
    );
    assert!(problem(&entry("input=1.0\noutput=1.0\nhours=[4,4]")).contains("hours must be"));
    let unknown = problem(&entry("input=1.0\noutput=1.0\noutptu=1.0"));
    assert!(unknown.contains("line 8") && unknown.contains("outptu"), "{unknown}");
    let missing = problem(&entry("input=1.0"));
    assert!(missing.contains("line 4") && missing.contains("output"), "{missing}");
    let kind = problem(&entry("input=1.0\noutput=1.0\ntiers={batch=\"half\"}"));
    assert!(kind.contains("line 8") && kind.contains("a factor or a table of rates"), "{kind}");
}

#[test]
fn every_shipped_price_is_reachable_by_its_name() {
    let prices = built_in();
    for sheet in &prices.sheets {
        for (name, indexes) in &sheet.models {
            let of_host = sheet.prices[indexes[0]].hosts.first().cloned().unwrap_or_default();
            let event = AgentEvent { provider: of_host, ..million(name) };
            assert!(priced(prices, event).is_ok(), "{name}");
        }
    }
}

proptest! {
    /// The cost is the exact sum, rounded once, half up.
    #[test]
    fn cost_is_the_exact_sum_rounded_once(
        tokens in prop::array::uniform6(0u64..10_000_000), rates in prop::array::uniform6(0u32..100_000_000),
    ) {
        let dollars = |micros: u32| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let [input, read, write_5m, write_1h, output, reasoning] = rates.map(dollars);
        let prices = table(&format!(
            "[[price]]\nmodel=\"m\"\ninput={input}\ncache_read={read}\ncache_write_5m={write_5m}\n\
             cache_write_1h={write_1h}\noutput={output}\nreasoning={reasoning}\n"
        )).unwrap();
        let event = AgentEvent {
            in_uncached: tokens[0],
            cache_read: tokens[1],
            cache_write_5m: tokens[2],
            cache_write_1h: tokens[3],
            out_visible: tokens[4],
            out_reasoning: tokens[5],
            ..call("m")
        };
        let exact: u128 = tokens.iter().zip(rates).map(|(n, rate)| u128::from(*n) * u128::from(rate)).sum();
        prop_assert_eq!(i128::from(priced(&prices, event).unwrap()), (exact as i128 + 500) / 1000);
    }

    /// Splitting a call in two moves its cost by no more than the rounding.
    #[test]
    fn costs_add_up(a in 0u64..90_000, b in 0u64..90_000, model in prop::sample::select(vec!["gpt-5", "gemini-2.5-pro", "claude-opus-5"])) {
        let cost = |tokens| priced(built_in(), AgentEvent { in_uncached: tokens, out_visible: tokens, ..call(model) }).unwrap();
        prop_assert!((cost(a) + cost(b) - cost(a + b)).abs() <= 1);
        prop_assert!(cost(a) <= cost(a + b));
    }

    #[test]
    fn any_name_and_any_terms_are_survived(model in ".{0,40}", tier in ".{0,12}", tokens in any::<[u64; 6]>(), timestamp in any::<i64>()) {
        let data = serde_json::json!({"service_tier": tier}).to_string();
        let mut event = AgentEvent {
            in_uncached: tokens[0], cache_read: tokens[1], cache_write_5m: tokens[2], cache_write_1h: tokens[3],
            out_visible: tokens[4], out_reasoning: tokens[5], timestamp, data, ..call(&model)
        };
        let why = built_in().enrich(&mut event);
        prop_assert_eq!(why.is_none(), event.cost_computed.is_some());
    }
}
