//! A receipt as the gateway printed it: the raw positions of every piece, `partition:offset,partition:offset`.

use std::str::FromStr;

use fleetlog_schemas::api::SPOOLED_RECEIPT;
use fleetlog_schemas::id::Position;
use thiserror::Error;

/// Most places of one receipt: a body has at most a few messages.
const POSITIONS_MAX: usize = 256;

/// Why a receipt cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not one of the gateway's.
    #[error("not a receipt: give `receipt` of an ingest answer, for instance 0:17,2:5")]
    Malformed,
    /// The request waits on a gateway's disk and has no place in the log yet.
    #[error("the receipt names no place in the log yet: the gateway holds the request in its spool")]
    Spooled,
}

/// The places of a request's pieces; none of a request without records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt(Vec<Position>);

impl Receipt {
    /// The places.
    pub(crate) fn positions(&self) -> &[Position] {
        &self.0
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        if text == SPOOLED_RECEIPT {
            return Err(ReceiptError::Spooled);
        }
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let positions: Option<Vec<Position>> =
            text.split(',').take(POSITIONS_MAX + 1).map(position).collect();
        match positions {
            Some(positions) if positions.len() <= POSITIONS_MAX => Ok(Self(positions)),
            _ => Err(ReceiptError::Malformed),
        }
    }
}

fn position(text: &str) -> Option<Position> {
    let (partition, offset) = text.split_once(':')?;
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(partition) || !plain(offset) {
        return None;
    }
    Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_the_gateway_prints_it() {
        let positions = [Position { partition: 1, offset: 7 }, Position { partition: 0, offset: 81 }];
        let printed = positions.map(|at| at.to_string()).join(",");
        assert_eq!(printed.parse::<Receipt>().unwrap().positions(), positions);
        assert_eq!("".parse::<Receipt>().unwrap().positions(), [], "of a request without records");
    }

    #[test]
    fn what_is_no_receipt_is_refused() {
        let long = vec!["0:1"; POSITIONS_MAX + 1].join(",");
        for text in
            [" ", "r", "1", "1:", ":1", "-1:2", "1:-2", "1:2,", "1:2,,3:4", "+1:2", "9999999999:1", &long]
        {
            assert_eq!(text.parse::<Receipt>(), Err(ReceiptError::Malformed), "{text}");
        }
        assert_eq!(SPOOLED_RECEIPT.parse::<Receipt>(), Err(ReceiptError::Spooled));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "([0-9:,]|.){0,80}") {
            let _refused = text.parse::<Receipt>().is_err();
        }
    }
}
