//! Storing a range of facts exactly once, as pure decisions (INV-4): what is sent, sent again, waited for, proved.
//!
//! Before anything is sent, what will be sent is recorded beside the committed offset ([`Note`]): the range, the attempt
//! and `insert_before`, the moment after which ClickHouse refuses to start it. So whoever comes next knows what may
//! still be on its way. **The token is the fast path, the stored positions are the proof**: the engine writes its
//! deduplication record before the part, so a deduplicated answer alone proves nothing.
//!
//! One attempt is a set of rows under one token. The first holds all rows of the range; a further one exactly those
//! that are proved missing, under a fresh token. What may be done depends on what is known ([`Proof::next`]):
//!
//! | sent so far | `insert_before` | still running | missing | next |
//! |---|---|---|---|---|
//! | nothing | | | | record attempt 1, send all |
//! | once, here, answered with success | | | | stored: no doubt ever arose |
//! | once, here, answered with a refusal of rows that have stand-ins now | | some | | wait |
//! | the same | | none | some | at once: record a further attempt, send the missing rows, stand-ins among them |
//! | refused after an outcome was open | ahead | | | read back: the rows have changed, so the token is used up |
//! | refused, and no row of it on its own | ahead | | | as any open outcome: send the same rows again |
//! | the outcome is open | ahead | | | send the same rows again under the same token, then read back |
//! | the same, and the rows are not known here | ahead | | | read back |
//! | read back | ahead | | none | stored |
//! | read back | ahead | | some | wait |
//! | the outcome is open | past | some | | wait: it may yet commit |
//! | the outcome is open | past | none | none | stored |
//! | the outcome is open | past | none | some | record a further attempt, send exactly the missing rows |
//!
//! What a crash leaves, at every point, and what the next owner finds:
//!
//! | killed | recorded | in ClickHouse | the next owner |
//! |---|---|---|---|
//! | before the note | nothing | nothing | gathers a range of its own choice |
//! | after the note, before the insert | attempt | nothing | gathers that range, sends again, reads back |
//! | during the insert | attempt | nothing, later all of it | the same; the token or `insert_before` keeps it from being stored twice |
//! | after the insert, before the commit | attempt | all of it | sends again: ignored by the token; reads back: nothing is missing |
//! | during a further attempt | that attempt | some | does not know its rows, so waits for `insert_before`, then reads back |
//! | after a refusal, while its rows are looked for | attempt 1 | nothing | sends again, is refused, looks for them again |
//! | with stand-ins sent as a further attempt | that attempt | all, or nothing | waits and reads back: a stand-in proves its position as any row does; else sends what is missing as it came, and is refused as at first |
//! | ClickHouse itself, between its record and the part | attempt | a record, no rows | reads back: missing, so sends them under a fresh token |

use serde::{Deserialize, Serialize};

/// How long after an attempt was recorded ClickHouse may still start it (INV-4.1), milliseconds.
pub(crate) const INSERT_WINDOW_MS: i64 = 30_000;

/// What the committed offset's metadata says of the range behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Note {
    /// Offset of the range's first record.
    pub(crate) first: i64,
    /// Offset of its last record, itself included.
    pub(crate) last: i64,
    /// Number of the table from which on nothing is proved; the earlier ones are.
    pub(crate) table: usize,
    /// Attempt under way in that table.
    pub(crate) attempt: u32,
    /// No insert of that attempt starts after this time of ClickHouse's clock, milliseconds.
    pub(crate) insert_before_ms: i64,
}

/// Metadata that is not a note of ours.
#[derive(Debug, thiserror::Error)]
#[error("the committed offset's metadata is not a note of an insert: {0}")]
pub struct BadNote(#[from] serde_json::Error);

impl Note {
    /// Its form in the metadata, far below Kafka's 4,096 bytes.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The note that metadata holds; `None` when it is empty: nothing was on its way.
    ///
    /// # Errors
    /// [`BadNote`]: somebody else wrote it, or a newer version.
    pub(crate) fn parse(metadata: &str) -> Result<Option<Self>, BadNote> {
        if metadata.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(metadata)?)) }
    }
}

/// What is known about one table's rows of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Attempt under way; 0 before the first.
    attempt: u32,
    insert_before_ms: i64,
    doubt: Doubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Nothing was sent.
    Unsent,
    /// The first attempt is recorded and has not been sent from here.
    Recorded,
    /// Something may be on its way, and its rows are at hand.
    Open,
    /// Something may be on its way that cannot be repeated, or has been.
    Unrepeatable,
    /// What was sent is answered with a refusal, so nothing of it is on its way; its rows have changed since.
    Refused,
    /// All rows are stored.
    Stored,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Record this attempt with a new `insert_before`, then send: all rows, or exactly the missing ones.
    Begin(u32),
    /// Send the attempt's rows under its token: for the first time, or again.
    Send,
    /// Read back which positions are missing.
    ReadBack,
    /// First ask whether an insert of the range still runs; if none does, read back.
    Settle,
    /// All rows are stored.
    Done,
}

/// How sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// ClickHouse said that it stored them.
    Acknowledged,
    /// ClickHouse refused them for their data, and what is sent next are other rows at the same positions.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Proof {
    /// A table to which nothing of the range was sent.
    pub(crate) const fn unsent() -> Self {
        Self { attempt: 0, insert_before_ms: 0, doubt: Doubt::Unsent }
    }

    /// A table with a first attempt that was recorded for the whole range just now, here.
    pub(crate) const fn recorded(insert_before_ms: i64) -> Self {
        Self { attempt: 1, insert_before_ms, doubt: Doubt::Recorded }
    }

    /// A table of which an earlier owner recorded an attempt.
    pub(crate) const fn inherited(attempt: u32, insert_before_ms: i64) -> Self {
        // The first attempt holds all rows of the range, and these can be gathered again.
        let doubt = if attempt <= 1 { Doubt::Open } else { Doubt::Unrepeatable };
        Self { attempt, insert_before_ms, doubt }
    }

    /// The attempt under way.
    pub(crate) const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// No insert of it starts after this time.
    pub(crate) const fn insert_before_ms(&self) -> i64 {
        self.insert_before_ms
    }

    /// What to do at this time of ClickHouse's clock.
    pub(crate) const fn next(&self, now_ms: i64) -> Step {
        let past = now_ms > self.insert_before_ms;
        match self.doubt {
            Doubt::Unsent => Step::Begin(1),
            Doubt::Recorded if !past => Step::Send,
            Doubt::Open if !past => Step::Send,
            Doubt::Unrepeatable if !past => Step::ReadBack,
            // Other rows under the same token could be ignored for those that came before.
            Doubt::Recorded | Doubt::Open | Doubt::Unrepeatable | Doubt::Refused => Step::Settle,
            Doubt::Stored => Step::Done,
        }
    }

    /// An attempt is recorded.
    pub(crate) const fn begun(&mut self, attempt: u32, insert_before_ms: i64) {
        *self = Self { attempt, insert_before_ms, doubt: Doubt::Recorded };
    }

    /// The attempt's rows were sent.
    pub(crate) const fn sent(&mut self, sent: Sent) {
        self.doubt = match (self.doubt, sent) {
            // Sent once, under a token that nobody used before, and acknowledged.
            (Doubt::Recorded, Sent::Acknowledged) => Doubt::Stored,
            // Acknowledged may mean ignored: the positions tell.
            (_, Sent::Acknowledged) => Doubt::Unrepeatable,
            (Doubt::Recorded, Sent::Refused) => Doubt::Refused,
            // What was sent before may still arrive, with the rows as they were.
            (_, Sent::Refused) => Doubt::Unrepeatable,
            (_, Sent::Unknown) => Doubt::Open,
        };
    }

    /// The positions were read back. `settled` tells that nothing of the attempt can change them any more: its time was
    /// past, or it was answered, and nothing ran before they were read. Returns whether a further attempt is due.
    pub(crate) const fn read_back(&mut self, missing: usize, settled: bool) -> Option<Step> {
        if missing == 0 {
            self.doubt = Doubt::Stored;
            return None;
        }
        if settled { Some(Step::Begin(self.attempt + 1)) } else { None }
    }
}

#[cfg(test)]
mod refusal;
#[cfg(test)]
mod tests;
