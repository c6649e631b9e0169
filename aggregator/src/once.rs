//! Storing a range of facts exactly once, as pure decisions (INV-4): what is sent, sent again, waited for, proved.
//!
//! Before anything is sent, what will be sent is recorded beside the committed offset ([`Note`]): the range, the attempt
//! and `insert_before`, the moment after which ClickHouse refuses to start it. So whoever comes next knows what may
//! still be on its way. **The token is the fast path, the stored positions are the proof**: the engine writes its
//! deduplication record before the part, so a deduplicated answer alone proves nothing. A position is stored when the same
//! fact is stored there: a log that was cut off or made anew has others at the same positions.
//!
//! One attempt is a set of rows under one token, which is of its `insert_before` too. The first holds all rows of the range;
//! a further one exactly those that are proved missing, under a fresh token. What may be done depends on what is known
//! ([`Proof::next`]):
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
//! | nothing from here, and the log is read again | ahead | | | read back: anything of it may be stored, or on its way |
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
//! | during a further attempt | that attempt | some | does not know its rows, so waits for `insert_before`, then reads back; the later tables likewise, whose first attempt may be on its way |
//! | after a refusal, while its rows are looked for | attempt 1 | nothing | sends again, is refused, looks for them again |
//! | with stand-ins sent as a further attempt | that attempt | all, or nothing | waits and reads back: a stand-in proves its position as any row does; else sends what is missing as it came, and is refused as at first |
//! | ClickHouse itself, between its record and the part | attempt | a record, no rows | reads back: missing, so sends them under a fresh token |
//!
//! Where reading starts need not be where storing ended. What may be stored already is looked at before anything of it is
//! sent, and what is sent is a further attempt: a successor knows its rows as little ([`Inherited`]).
//!
//! | committed | the log | what is stored behind where reading starts | the new owner |
//! |---|---|---|---|
//! | an offset within the log | whole | nothing, or the noted range | goes on; proves the noted range first |
//! | an offset that is too low: set back, or its owner died while it read again | whole | some of what is read | stores what is missing of what it reads, up to where the store ends |
//! | nothing: lost, or another group's | whole | all that was stored | the same, after as long as an insert that nobody tells of may start or run |
//! | an offset beyond the end | cut off, or made anew | facts of the same places: the same ones, or others | the same, by fact; the note is of a range that is gone, and what it says of `insert_before` holds |
//! | an offset before the first | its beginning is deleted | nothing, or the noted range's rest | the same |
//! | an offset within it | ends before the noted range does | some of the noted range | the same with what is left of it, and commits that alone |

use fleetlog_log::Start;
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

/// What may be stored of a range, or be on its way, before anything of it is sent from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: it is read for the first time.
    Nothing,
    /// What an earlier owner recorded.
    Noted(Note),
    /// Anything: it may have been read before.
    ReadAgain {
        /// No insert of it starts after this time of ClickHouse's clock, milliseconds.
        insert_before_ms: i64,
    },
}

impl Before {
    /// Whether all rows of the table of this number are known to be stored.
    pub(crate) const fn proves(&self, table: usize) -> bool {
        matches!(self, Self::Noted(note) if table < note.table)
    }
}

/// What a new owner takes over of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// The range to be proved before anything else.
    pub(crate) noted: Option<Note>,
    /// What is read below this offset may be stored already.
    again_below: i64,
    insert_before_ms: i64,
}

impl Inherited {
    /// Decides it, given where reading starts and why, the note beside the committed offset, and the offset behind all that
    /// is stored from there on.
    ///
    /// Only where reading goes on at the committed offset the next records are the noted ones. A note that comes with another
    /// start still tells what may be on its way. Where nothing is committed nobody tells: what is stored is asked for once
    /// nothing can be on its way.
    pub(crate) fn new(offset: i64, start: Start, note: Option<Note>, stored_end: i64) -> Self {
        let note = note.filter(|note| note.last >= offset);
        Self {
            noted: note.filter(|_| start == Start::Resumed),
            again_below: note.map_or(stored_end, |note| stored_end.max(note.last + 1)),
            insert_before_ms: note.map_or(0, |note| note.insert_before_ms),
        }
    }

    /// What may be stored of a range that begins with this record.
    pub(crate) const fn before(&self, first: i64) -> Before {
        if first < self.again_below {
            Before::ReadAgain { insert_before_ms: self.insert_before_ms }
        } else {
            Before::Nothing
        }
    }

    /// The same of the range that was gathered for the note: where the log has changed it is another one.
    pub(crate) fn before_noted(&self, first: i64, last: i64) -> Before {
        match self.noted {
            Some(note) if (note.first, note.last) == (first, last) => Before::Noted(note),
            _ => self.before(first),
        }
    }
}

/// What is known about one table's rows of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Attempt under way.
    attempt: u32,
    insert_before_ms: i64,
    doubt: Doubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Nothing was sent from here, and anything may be stored.
    ReadAgain,
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

    /// A table of which anything may be stored; no insert of it starts after this time. What is sent is a further attempt.
    pub(crate) const fn read_again(insert_before_ms: i64) -> Self {
        Self { attempt: 1, insert_before_ms, doubt: Doubt::ReadAgain }
    }

    /// Whether rows that are missing may simply never have been sent.
    pub(crate) const fn is_read_again(&self) -> bool {
        matches!(self.doubt, Doubt::ReadAgain)
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
            Doubt::Recorded if !past => Step::Send,
            Doubt::Open if !past => Step::Send,
            Doubt::Unrepeatable | Doubt::ReadAgain if !past => Step::ReadBack,
            // Other rows under the same token could be ignored for those that came before.
            Doubt::Recorded | Doubt::Open | Doubt::Unrepeatable | Doubt::ReadAgain | Doubt::Refused => {
                Step::Settle
            }
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
    /// past, or it was answered, and nothing ran before they were read. Returns the further attempt that is due: it is to be
    /// recorded with a new `insert_before`, and holds exactly the missing rows.
    pub(crate) const fn read_back(&mut self, missing: usize, settled: bool) -> Option<u32> {
        if missing == 0 {
            self.doubt = Doubt::Stored;
            return None;
        }
        if settled { Some(self.attempt + 1) } else { None }
    }
}

#[cfg(test)]
mod refusal;
#[cfg(test)]
mod tests;
