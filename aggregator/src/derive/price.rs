//! What a call costs by the price table.
//!
//! | the account whose usage counts | the cost |
//! |---|---|
//! | was repriced since | by the table of the last repricing that has a price for it, whatever else holds |
//! | carries one | that, as the processor computed it |
//! | carries none, and another account of the call carries that of the same usage | that |
//! | neither (the model, the tier or the tokens came in different records) | computed here, for what the records say together |
//!
//! An account made of pieces carries the cost of the piece that states its tokens, where all that the cost depends on is
//! what the pieces say together. What a cost depends on is [`Usage`]. The reported cost is another matter.

use fleetlog_pricing::{Tokens, Usage};
use fleetlog_schemas::event::{TokenBasis, UsageRole};
use fleetlog_store::derived::Sighting;

use super::merge::{self, Gathered};
use super::prices::ProjectPrices;
use super::tokens;

/// A computed cost, billionths of a dollar, and the version of the table behind it.
pub(super) type Cost = (i64, String);

/// What one account states.
pub(super) fn usage(sighting: &Sighting) -> Usage<'_> {
    let counts = if tokens::role(sighting) == UsageRole::Call { tokens::vector(sighting) } else { [0; 6] };
    let [in_uncached, cache_read, cache_write_5m, cache_write_1h, out_visible, out_reasoning] = counts;
    Usage {
        model: if sighting.model.is_empty() { &sighting.model_requested } else { &sighting.model },
        provider: &sighting.provider,
        time_ns: sighting.timestamp,
        tier: &sighting.service_tier,
        geo: &sighting.inference_geo,
        tokens: Tokens {
            in_uncached,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            out_visible,
            out_reasoning,
        },
        basis: TokenBasis::parse(&sighting.token_basis).unwrap_or_default(),
        channel: merge::channel(sighting),
        is_sum: false,
    }
}

/// The cost that an account carries.
fn carried(account: &Sighting) -> Option<Cost> {
    account.cost_computed.map(|cost| (cost, account.price_version.clone()))
}

/// What the call costs that the accounts make together. `is_sum` tells that it may be several calls of its model.
pub(super) fn cost(prices: &ProjectPrices<'_>, gathered: &Gathered<'_>, is_sum: bool) -> Option<Cost> {
    let best = gathered.best()?;
    let states_usage = tokens::role(best) == UsageRole::Call;
    let together = || together(gathered, best, is_sum);
    if states_usage
        && prices.are_repriced()
        && let Some(cost) = prices.repriced(&together())
    {
        return Some(cost);
    }
    if let Some(cost) = carried(best).filter(|_| states_usage) {
        return Some(cost);
    }
    let together = together();
    let same = gathered.says().filter(|account| tokens::role(account) == UsageRole::Call);
    if let Some(cost) = same.filter(|account| usage(account).costs_as(&together)).find_map(carried) {
        return Some(cost);
    }
    if states_usage { prices.computed(&together) } else { None }
}

/// What the accounts say together.
fn together<'a>(gathered: &'a Gathered<'_>, best: &'a Sighting, is_sum: bool) -> Usage<'a> {
    let model = gathered.said(|account| &account.model);
    Usage {
        model: if model.is_empty() { gathered.said(|account| &account.model_requested) } else { model },
        provider: gathered.said(|account| &account.provider),
        tier: gathered.said(|account| &account.service_tier),
        geo: gathered.said(|account| &account.inference_geo),
        is_sum,
        ..usage(best)
    }
}
