//! Where reading a partition starts, as a pure decision.

/// What the group had committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to be settled.
    pub offset: i64,
    /// What the previous owner noted beside it (INV-4.1); empty if nothing.
    pub metadata: String,
}

/// How the starting position relates to what the group had committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The group never committed here: reading starts at the log's beginning.
    Fresh,
    /// Reading goes on where the group had come to.
    Resumed,
    /// Retention deleted records that the group had not settled: loss, to be reported.
    Lost {
        /// First offset that is gone.
        from: i64,
        /// First offset that is still there.
        to: i64,
    },
    /// The log ends before the committed offset: it was truncated or created anew, and nothing tells which. Reading starts
    /// at its beginning: of a new log nothing was ever read, of a truncated one all that is left may have been.
    Ahead {
        /// The committed offset.
        committed: i64,
        /// The log's end.
        end: i64,
    },
}

/// A partition as it was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Number of the assignment, growing within this process; an assignment of the same partition later has a
    /// higher one.
    pub epoch: u64,
    /// Offset of the first record that will be read.
    pub offset: i64,
    /// What the group had committed.
    pub committed: Option<Committed>,
    /// How the two relate.
    pub start: Start,
}

/// Decides where to start, given what is committed and the log's first and next offset.
pub(super) fn decide(committed: Option<i64>, first: i64, end: i64) -> (i64, Start) {
    match committed {
        None => (first, Start::Fresh),
        Some(offset) if offset < first => (first, Start::Lost { from: offset, to: first }),
        Some(offset) if offset > end => (first, Start::Ahead { committed: offset, end }),
        Some(offset) => (offset, Start::Resumed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_commit_starts_at_the_beginning_of_the_log() {
        assert_eq!(decide(None, 7, 9), (7, Start::Fresh));
    }

    #[test]
    fn what_retention_took_is_loss_and_not_a_silent_jump() {
        assert_eq!(decide(Some(3), 7, 9), (7, Start::Lost { from: 3, to: 7 }));
        assert_eq!(decide(Some(7), 7, 9), (7, Start::Resumed));
        assert_eq!(decide(Some(9), 7, 9), (9, Start::Resumed));
        assert_eq!(decide(Some(10), 7, 9), (7, Start::Ahead { committed: 10, end: 9 }));
    }
}
