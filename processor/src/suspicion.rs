//! Records that end the process, as pure decisions (INV-8): no panic can be caught after a stack overflow, or when the
//! kernel takes the memory back, and the next owner of the partition would read the same record again, for ever.
//!
//! So what is begun is noted beside the committed offset ([`Note`]), where the next owner finds what its predecessor did
//! not survive. A transaction moves the offset and leaves no note, so only the first cycle after an assignment costs one.
//!
//! | found beside the committed offset | what is done with the records behind it |
//! |---|---|
//! | nothing | the first cycle is noted as a whole; those that follow are not |
//! | a cycle | each of its records goes alone: noted before it is decoded, taken back once that is survived |
//! | a record alone, begun fewer than `poison_tries` times | it goes alone again, with one try more; then the rest of its cycle |
//! | a record alone, begun `poison_tries` times | it becomes a dead letter without being decoded |
//!
//! # Invariants
//! While one record is decoded alone nothing else is, whatever the number of partitions, so that none is blamed for
//! another ([`crate::isolation`]).
//! A process that is killed from outside costs its successor some speed: a record is blamed only when its decoding is
//! not survived `poison_tries` times in a row.

use serde::{Deserialize, Serialize};

/// What the committed offset's metadata says of the cycle that was begun behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Note {
    /// Last record of the cycle.
    pub(crate) last: i64,
    /// How often its first record was begun alone.
    pub(crate) tries: u32,
}

impl Note {
    /// Its form in the metadata, far below Kafka's 4,096 bytes.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The note that metadata holds. What somebody else wrote accuses nobody.
    fn parse(metadata: &str) -> Option<Self> {
        serde_json::from_str(metadata).ok()
    }
}

/// How a cycle is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Nothing is noted.
    Freely,
    /// This is noted, and left to the transaction to remove.
    Noted(Note),
    /// This is noted about one record, and taken back once its decoding is survived.
    Alone(Note),
    /// The record is not decoded any more: so often it was not survived.
    Bury(u32),
}

/// What a partition's owner suspects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    most_tries: u32,
    /// The next record to be settled.
    next: i64,
    /// Whether no cycle of this assignment has been settled.
    first: bool,
    /// What an earlier owner noted about the record at this offset and those behind it.
    noted: Option<(i64, Note)>,
}

impl Suspicion {
    /// What is suspected when a partition is assigned at `offset` with that metadata beside it.
    pub(crate) fn found(offset: i64, metadata: &str, most_tries: u32) -> Self {
        let noted = Note::parse(metadata).map(|note| (offset, note));
        Self { most_tries, next: offset, first: true, noted }
    }

    /// Whether the next record goes alone.
    pub(crate) fn isolates(&self) -> bool {
        self.noted.is_some_and(|(_, note)| self.next <= note.last)
    }

    /// How to begin a cycle of the records from `first` to `last`; only one when they go alone.
    pub(crate) fn begin(&self, first: i64, last: i64) -> Begin {
        match self.noted {
            Some((at, note)) if self.isolates() => {
                let tries = if first == at { note.tries } else { 0 };
                if tries >= self.most_tries {
                    Begin::Bury(tries)
                } else {
                    Begin::Alone(Note { last: note.last.max(last), tries: tries + 1 })
                }
            }
            _ if self.first => Begin::Noted(Note { last, tries: 0 }),
            _ => Begin::Freely,
        }
    }

    /// Everything below `next` is settled.
    pub(crate) fn settled(&mut self, next: i64) {
        (self.next, self.first) = (next, false);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const TRIES: u32 = 3;

    #[test]
    fn only_the_first_cycle_of_an_assignment_is_noted() {
        let mut suspicion = Suspicion::found(10, "", TRIES);
        assert!(!suspicion.isolates());
        assert_eq!(suspicion.begin(10, 14), Begin::Noted(Note { last: 14, tries: 0 }));
        suspicion.settled(15);
        assert_eq!(suspicion.begin(15, 99), Begin::Freely);
    }

    #[test]
    fn a_cycle_that_was_not_survived_goes_record_by_record_and_no_further() {
        let mut suspicion = Suspicion::found(10, &Note { last: 11, tries: 0 }.text(), TRIES);
        assert_eq!(suspicion.begin(10, 10), Begin::Alone(Note { last: 11, tries: 1 }));
        suspicion.settled(11);
        assert_eq!(suspicion.begin(11, 11), Begin::Alone(Note { last: 11, tries: 1 }));
        suspicion.settled(12);
        assert!(!suspicion.isolates());
        assert_eq!(suspicion.begin(12, 20), Begin::Freely);
    }

    #[test]
    fn a_record_that_was_not_survived_so_often_is_buried_and_its_neighbours_are_not() {
        let mut suspicion = Suspicion::found(10, &Note { last: 12, tries: TRIES }.text(), TRIES);
        assert_eq!(suspicion.begin(10, 10), Begin::Bury(TRIES));
        suspicion.settled(11);
        assert_eq!(suspicion.begin(11, 11), Begin::Alone(Note { last: 12, tries: 1 }));
    }

    #[test]
    fn what_others_wrote_beside_the_offset_accuses_nobody() {
        for metadata in ["", "{}", "x", "{\"last\":1}", "{\"last\":1,\"tries\":9,\"more\":1}"] {
            assert!(!Suspicion::found(1, metadata, TRIES).isolates(), "{metadata}");
        }
        assert!(Note { last: i64::MAX, tries: u32::MAX }.text().len() < 100);
    }

    /// A partition's log and its committed offset, worked on by owners that die of poison, or are killed from outside.
    struct World {
        poison: BTreeSet<i64>,
        end: i64,
        committed: (i64, String),
        /// Fate of each settled record: decoded, or buried.
        decoded: BTreeSet<i64>,
        buried: BTreeSet<i64>,
        deaths: usize,
    }

    impl World {
        /// One owner from its assignment to its death; `kills` tells at each step whether it is killed from outside.
        fn own(&mut self, cycle: i64, kills: &mut impl FnMut() -> bool) -> bool {
            let mut suspicion = Suspicion::found(self.committed.0, &self.committed.1, TRIES);
            loop {
                let first = self.committed.0;
                if first >= self.end {
                    return true;
                }
                let size = if suspicion.isolates() { 1 } else { cycle };
                let last = (first + size).min(self.end) - 1;
                let begin = suspicion.begin(first, last);
                if kills() {
                    return false;
                }
                if let Begin::Noted(note) | Begin::Alone(note) = begin {
                    self.committed.1 = note.text();
                }
                if kills() {
                    return false;
                }
                let bury = matches!(begin, Begin::Bury(_));
                if !bury && self.poison.range(first..=last).next().is_some() {
                    self.deaths += 1;
                    return false;
                }
                if let Begin::Alone(_) = begin {
                    self.committed.1.clear();
                }
                let fate = if bury { &mut self.buried } else { &mut self.decoded };
                fate.extend(first..=last);
                self.committed = (last + 1, String::new());
                suspicion.settled(last + 1);
            }
        }
    }

    proptest! {
        /// The partition gets through, every poison is buried and nothing else is, after a bounded number of deaths.
        #[test]
        fn poison_and_nothing_else_is_buried_after_a_bounded_number_of_deaths(
            poison in prop::collection::btree_set(0i64..60, 0..6),
            cycle in 1i64..20,
        ) {
            let mut world = World {
                poison: poison.clone(), end: 60, committed: (0, String::new()),
                decoded: BTreeSet::new(), buried: BTreeSet::new(), deaths: 0,
            };
            let most = poison.len() * (TRIES as usize + 2);
            while !world.own(cycle, &mut || false) {
                prop_assert!(world.deaths <= most, "{} deaths of {} poisons", world.deaths, poison.len());
            }
            prop_assert_eq!(&world.buried, &poison);
            prop_assert_eq!(world.decoded.len() + world.buried.len(), 60);
        }

        /// Killed from outside, again and again: as long as no record is hit so often in a row, none is blamed.
        #[test]
        fn kills_from_outside_bury_nothing(kills in prop::collection::vec(0usize..40, 0..60), cycle in 1i64..20) {
            let mut world = World {
                poison: BTreeSet::new(), end: 60, committed: (0, String::new()),
                decoded: BTreeSet::new(), buried: BTreeSet::new(), deaths: 0,
            };
            // Every second owner survives its first cycle, so that no record is hit three times in a row.
            let mut lives = kills.into_iter().zip([1, 3].into_iter().cycle());
            loop {
                let mut left = lives.next().map_or(usize::MAX, |(steps, least)| steps + least);
                if world.own(cycle, &mut || { left -= 1; left == 0 }) { break }
            }
            prop_assert!(world.buried.is_empty());
            prop_assert_eq!(world.decoded.len(), 60);
        }
    }
}
