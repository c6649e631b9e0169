//! What a key or a project may send, as `fleetlog keys` and `fleetlog projects` set and say it.

use clap::Args;
use fleetlog_schemas::control::SendLimits;

/// Limits to set; what is not named stays as it is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// Records per second, through each gateway: a number, `none`, or `default` for the gateway's
    #[arg(long, value_name = "NUMBER", value_parser = parse)]
    records_per_second: Option<Wish>,
    /// Bytes of bodies per second, through each gateway: a number, `none`, or `default` for the gateway's
    #[arg(long, value_name = "NUMBER", value_parser = parse)]
    bytes_per_second: Option<Wish>,
    /// Records per day (UTC), through all gateways: a number, `none`, or `default` for the gateway's
    #[arg(long, value_name = "NUMBER", value_parser = parse)]
    records_per_day: Option<Wish>,
}

/// What a limit is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Default,
    Is(u64),
}

fn parse(text: &str) -> Result<Wish, String> {
    match text {
        "default" => Ok(Wish::Default),
        // 0 is how the record says it, and a key that may send nothing should be revoked.
        "none" => Ok(Wish::Is(0)),
        number => match number.parse() {
            Ok(0) => Err("0 would be no limit; say `none`, or revoke the key".to_owned()),
            Ok(limit) => Ok(Wish::Is(limit)),
            Err(_) => Err("expected a number, `none` or `default`".to_owned()),
        },
    }
}

impl LimitArgs {
    /// Whether nothing is to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.records_per_second.or(self.bytes_per_second).or(self.records_per_day).is_none()
    }

    /// The limits after the change.
    pub(crate) fn apply(&self, limits: SendLimits) -> SendLimits {
        let become_ = |wish: Option<Wish>, was| match wish {
            None => was,
            Some(Wish::Default) => None,
            Some(Wish::Is(limit)) => Some(limit),
        };
        SendLimits {
            records_per_second: become_(self.records_per_second, limits.records_per_second),
            bytes_per_second: become_(self.bytes_per_second, limits.bytes_per_second),
            records_per_day: become_(self.records_per_day, limits.records_per_day),
        }
    }
}

/// The limits that are set, in few words.
pub(crate) fn said(limits: SendLimits) -> String {
    let of = |limit: Option<u64>, unit| match limit {
        None => None,
        Some(0) => Some(format!("no limit of {unit}")),
        Some(limit) => Some(format!("{limit} {unit}")),
    };
    let parts = [
        of(limits.records_per_second, "records/s"),
        of(limits.bytes_per_second, "bytes/s"),
        of(limits.records_per_day, "records/day"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "default limits".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_none_is_not_the_default() {
        let was =
            SendLimits { records_per_second: Some(5), bytes_per_second: None, records_per_day: Some(9) };
        let change = LimitArgs {
            records_per_second: Some(parse("none").unwrap()),
            bytes_per_second: None,
            records_per_day: Some(parse("default").unwrap()),
        };
        let now = change.apply(was);
        assert_eq!(now, SendLimits { records_per_second: Some(0), ..SendLimits::default() });
        assert_eq!(
            (said(now), said(SendLimits::default())),
            ("no limit of records/s".into(), "default limits".into())
        );
        assert_eq!(LimitArgs::default().apply(was), was);
        assert!(parse("0").is_err() && parse("-1").is_err() && parse("many").is_err());
    }
}
