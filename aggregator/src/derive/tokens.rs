//! The token counts of a sighting as one vector: they are taken together or not at all.

use fleetlog_schemas::event::UsageRole;
use fleetlog_store::derived::Sighting;

/// The six disjoint buckets, in the order of the columns.
pub(super) type Vector = [u64; 6];

/// The counts as they stand.
pub(super) fn vector(sighting: &Sighting) -> Vector {
    [
        sighting.in_uncached,
        sighting.cache_read,
        sighting.cache_write_5m,
        sighting.cache_write_1h,
        sighting.out_visible,
        sighting.out_reasoning,
    ]
}

/// Replaces the counts.
pub(super) fn set(sighting: &mut Sighting, vector: Vector) {
    [
        sighting.in_uncached,
        sighting.cache_read,
        sighting.cache_write_5m,
        sighting.cache_write_1h,
        sighting.out_visible,
        sighting.out_reasoning,
    ] = vector;
}

/// Tokens of all buckets, saturating: a sender's absurd count must not wrap.
pub(super) fn sum(vector: Vector) -> u64 {
    vector.into_iter().fold(0, u64::saturating_add)
}

/// What the counts describe.
pub(super) fn role(sighting: &Sighting) -> UsageRole {
    UsageRole::parse(&sighting.usage_role).unwrap_or_default()
}

/// Tokens that the sighting states for one call.
pub(super) fn stated(sighting: &Sighting) -> u64 {
    if role(sighting) == UsageRole::Call { sum(vector(sighting)) } else { 0 }
}
