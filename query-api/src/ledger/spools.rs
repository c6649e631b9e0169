//! What waits in the gateways' spools: acknowledged, and in no log yet (INV-1).
//!
//! A gateway with a spool tells what it holds: everything that it accepted to the spool before `as_of` was, at that moment,
//! either among what it holds, none of which was accepted before `oldest`, or in the raw log. That stays true for ever,
//! so the last word of a gateway bounds what is complete until a newer one is read, be the gateway dead or Kafka away.
//!
//! A sample of the raw log's ends is therefore taken in this order, each step being over before the next begins:
//!
//! 1. the clock is read: whatever was acknowledged directly before this time is in the log, and a gateway that has ever
//!    answered "spooled" before it has told of its spool;
//! 2. the words of the gateways are read, to the end that their topic has now;
//! 3. the log's ends are read: what had left a spool by the time of a word lies below them.
//!
//! Everything acknowledged before [`logged_through`] then lies below those ends.

use fleetlog_schemas::record::SpoolStanding;

/// Up to when everything acknowledged is in a log whose ends are read after the clock and what the gateways told.
pub(crate) fn logged_through(at_ns: i64, spools: &[SpoolStanding]) -> i64 {
    spools.iter().map(held_through).fold(at_ns, i64::min)
}

/// Up to when a gateway's word lets everything be known to be in the log.
pub(crate) fn held_through(spool: &SpoolStanding) -> i64 {
    spool.oldest.map_or(spool.as_of, |oldest| oldest.min(spool.as_of))
}

#[cfg(test)]
mod tests;
