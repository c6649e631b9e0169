//! A simulation: a disk that fails, fills up and forgets what was not synced, under a process that dies anywhere, against
//! a model that remembers everything.
//!
//! Changes of `store.rs` that it was seen to catch: an answer before the sync, a new segment whose name is not synced, a
//! sequence without a reservation, a cursor ahead of what is drained, a segment removed before its last record is.
//!
//! `FLEETLOG_SIM_RUNS` and `FLEETLOG_SIM_SEED` make it longer and repeat it; a failing run prints its seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fleetlog_chance::{Chance, seeds};
use fleetlog_log::Target;
use fleetlog_schemas::avro::from_single_object;

use super::*;

/// A file's bytes as the process sees them, and as they are on disk.
#[derive(Clone, Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct Platter {
    chance: Chance,
    files: HashMap<u64, Bytes>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    made: u64,
    /// Calls that still succeed before the machine dies.
    power: u64,
    /// One call in so many fails by itself; 0 for none.
    flaky: u64,
    free: u64,
}

/// Handles of one disk, which outlives the processes that use it.
#[derive(Clone, Debug)]
struct SimDisk(Arc<Mutex<Platter>>);

fn gone() -> io::Error {
    io::Error::other("the machine is dead")
}

impl SimDisk {
    fn new(seed: u64) -> Self {
        let (files, names) = (HashMap::new(), BTreeMap::new());
        let synced_names = BTreeMap::new();
        let chance = Chance::new(seed);
        let free = u64::MAX;
        Self(Arc::new(Mutex::new(Platter {
            chance,
            files,
            names,
            synced_names,
            made: 0,
            power: u64::MAX,
            flaky: 0,
            free,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Platter) -> T) -> T {
        act(&mut lock(&self.0))
    }

    /// Power is back: what was not synced is there in part, in any order, or not at all.
    fn crash(&self) {
        self.with(|disk| {
            let Platter { chance, files, names, synced_names, .. } = disk;
            for bytes in files.values_mut() {
                let (short, long) = (bytes.synced.len().min(bytes.now.len()), bytes.now.len());
                let kept = short + chance.place(long - short + 1);
                let mut after = bytes.now[..kept].to_vec();
                if bytes.synced.len() > bytes.now.len() && chance.below(2) == 0 {
                    after.clone_from(&bytes.synced);
                }
                if kept > short && chance.below(3) == 0 {
                    let hole = short + chance.place(kept - short);
                    after[hole..].iter_mut().take(50).for_each(|byte| *byte = 0);
                }
                *bytes = Bytes { now: after.clone(), synced: after };
            }
            let all: BTreeSet<String> = names.keys().chain(synced_names.keys()).cloned().collect();
            for name in all {
                let (now, synced) = (names.get(&name).copied(), synced_names.get(&name).copied());
                match if chance.below(2) == 0 { now } else { synced } {
                    Some(file) => names.insert(name, file),
                    None => names.remove(&name),
                };
            }
            *synced_names = names.clone();
            disk.power = u64::MAX;
            disk.flaky = 0;
        });
    }
}

impl Platter {
    /// Whether this call works.
    fn turn(&mut self) -> io::Result<()> {
        if self.power == 0 {
            return Err(gone());
        }
        if self.power != u64::MAX {
            self.power -= 1;
        }
        if self.flaky > 0 && self.chance.below(self.flaky) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Bytes> {
        let id = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files.get_mut(id).unwrap())
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.with(|disk| {
            let length = |id: &u64| disk.files[id].now.len() as u64;
            Ok(disk.names.iter().map(|(name, id)| (name.clone(), length(id))).collect())
        })
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(|disk| {
            let bytes = &disk.file(name)?.now;
            Ok(bytes.iter().skip(offset as usize).take(length).copied().collect())
        })
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            let works = disk.turn();
            let part = if works.is_ok() { bytes.len() } else { disk.chance.place(bytes.len()) };
            if !disk.names.contains_key(name) {
                disk.made += 1;
                disk.files.insert(disk.made, Bytes::default());
                disk.names.insert(name.to_owned(), disk.made);
            }
            let file = disk.file(name)?;
            let offset = offset as usize;
            file.now.resize(file.now.len().max(offset + part), 0);
            file.now[offset..offset + part].copy_from_slice(&bytes[..part]);
            works
        })
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.with(|disk| {
            disk.turn()?;
            let file = disk.file(name)?;
            file.synced = file.now.clone();
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.turn()?;
            disk.synced_names = disk.names.clone();
            Ok(())
        })
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.turn()?;
            disk.file(name)?.now.resize(length as usize, 0);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|disk| {
            disk.turn()?;
            let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            disk.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|disk| {
            disk.turn()?;
            disk.names.remove(name);
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.with(|disk| Ok(disk.free))
    }
}

const BOUNDS: Bounds = Bounds { max_bytes: 1_000_000, min_free_bytes: 0, segment_bytes: 600 };

fn entry(name: u64, filler: usize) -> Entry {
    let batch = RawBatch {
        request_id: name.to_string(),
        payload: fleetlog_schemas::avro::Blob(vec![7; filler]),
        ..RawBatch::default()
    };
    Entry { batch, target: Spot::of(Target::Partition((name % 4) as i32)) }
}

/// Appends one request, and tells what it became.
fn append(store: &Store<SimDisk>, entries: Vec<Entry>) -> Result<Appended, SpoolError> {
    let mut told = None;
    let outcome = store.append(vec![entries], |_, appended| told = Some(appended)).remove(0);
    outcome.map(|()| told.unwrap())
}

/// Everything that is left to drain, by sequence: the name of each record.
fn left(store: &Store<SimDisk>) -> Vec<(u64, u64)> {
    let mut place = Place::after(store.drained());
    let mut found = Vec::new();
    loop {
        let chunk = store.read(&mut place, 100).unwrap();
        assert_eq!(chunk.lost, 0);
        if chunk.records.is_empty() {
            return found;
        }
        found.extend(chunk.records.into_iter().map(|record| named(&record)));
    }
}

fn named(record: &Record) -> (u64, u64) {
    let batch: RawBatch = from_single_object(&record.payload).unwrap();
    assert_eq!(batch.spool_sequence, i64::try_from(record.sequence).unwrap());
    (record.sequence, batch.request_id.parse().unwrap())
}

/// What must be true whatever the disk does.
#[derive(Default)]
struct Model {
    names: u64,
    /// Names of records by their sequence, of all that were ever acknowledged.
    acknowledged: BTreeMap<u64, u64>,
    /// Sequences that were ever read, with their names.
    seen: BTreeMap<u64, u64>,
    /// Sequences that Kafka took.
    taken: BTreeSet<u64>,
    /// Everything up to here was taken since the start.
    drained: u64,
}

impl Model {
    fn appends(&mut self, store: &Store<SimDisk>, chance: &mut Chance) {
        let mut requests = Vec::new();
        let mut names = Vec::new();
        for _ in 0..=chance.below(3) {
            let own: Vec<u64> = (0..=chance.below(3)).map(|more| self.names + more).collect();
            self.names += own.len() as u64;
            requests.push(own.iter().map(|name| entry(*name, chance.place(300))).collect());
            names.push(own);
        }
        let mut told = HashMap::new();
        let outcomes = store.append(requests, |place, appended| {
            told.insert(place, appended);
        });
        for (place, outcome) in outcomes.into_iter().enumerate() {
            if outcome.is_ok() {
                for (sequence, name) in (told[&place].first..).zip(&names[place]) {
                    assert_eq!(self.acknowledged.insert(sequence, *name), None, "{sequence} was given twice");
                    assert!(self.seen.get(&sequence).is_none_or(|seen| seen == name));
                }
            }
        }
    }

    /// Reads on, and lets Kafka take some of it.
    fn drains(&mut self, store: &Store<SimDisk>, place: &mut Place, chance: &mut Chance) {
        let Ok(chunk) = store.read(place, 200) else { return };
        assert_eq!(chunk.lost, 0);
        for record in &chunk.records {
            let (sequence, name) = named(record);
            assert_eq!(*self.seen.entry(sequence).or_insert(name), name, "{sequence} names two records");
            assert!(sequence > self.drained);
            self.drained = sequence;
            self.taken.insert(sequence);
        }
        if chance.below(3) == 0 {
            store.note_drained(self.drained).ok();
        }
        store.release(self.drained).ok();
        if chance.below(6) == 0 {
            store.release_all(self.drained).ok();
        }
    }

    /// After a crash: nothing acknowledged is missing, nothing is another record than it was, and in order.
    fn holds(&mut self, store: &Store<SimDisk>) {
        let left = left(store);
        assert!(left.is_sorted(), "out of order: {left:?}");
        for (sequence, name) in &left {
            assert_eq!(self.acknowledged.get(sequence).unwrap_or(name), name);
            assert_eq!(*self.seen.entry(*sequence).or_insert(*name), *name, "{sequence} names two records");
        }
        let there: BTreeSet<u64> = left.iter().map(|(sequence, _)| *sequence).collect();
        let is_safe = |sequence: &u64| there.contains(sequence) || self.taken.contains(sequence);
        let lost = self.acknowledged.keys().find(|sequence| !is_safe(sequence));
        assert_eq!(lost, None, "acknowledged and gone");
    }
}

fn run(seed: u64) {
    let disk = SimDisk::new(seed ^ 0xD15C);
    let (mut chance, mut model) = (Chance::new(seed), Model::default());
    for _ in 0..6 {
        let (store, _) = Store::open(disk.clone(), BOUNDS).unwrap();
        model.holds(&store);
        let mut place = Place::after(store.drained());
        // What was drained and not noted is drained again.
        model.drained = store.drained();
        let (power, flaky) = (chance.below(60) + 3, chance.below(4) * 7);
        disk.with(|disk| (disk.power, disk.flaky) = (power, flaky));
        while disk.with(|disk| disk.power > 0) {
            match chance.below(3) {
                0 | 1 => model.appends(&store, &mut chance),
                _ => model.drains(&store, &mut place, &mut chance),
            }
        }
        drop(store);
        disk.crash();
    }
}

/// INV-1, with a spool.
#[test]
fn nothing_acknowledged_is_lost_no_order_changes_and_no_sequence_is_given_twice_over_any_crash() {
    for seed in seeds(600) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_whole_and_there_is_room_again_once_it_is_drained() {
    let disk = SimDisk::new(1);
    let bounds = Bounds { max_bytes: 1_000, ..BOUNDS };
    let (store, _) = Store::open(disk, bounds).unwrap();
    append(&store, vec![entry(1, 300)]).unwrap();
    let two = vec![entry(2, 100), entry(3, 400)];
    assert!(matches!(append(&store, two.clone()), Err(SpoolError::Full)));
    append(&store, vec![entry(4, 100)]).unwrap();
    let all = left(&store);
    assert_eq!(all.iter().map(|(_, name)| *name).collect::<Vec<_>>(), [1, 4]);
    store.release_all(all.last().unwrap().0).unwrap();
    assert_eq!(store.bytes(), 0);
    append(&store, two).unwrap();
}

#[test]
fn what_the_file_system_must_keep_free_is_left_free() {
    let disk = SimDisk::new(1);
    let (store, _) = Store::open(disk.clone(), Bounds { min_free_bytes: 5_000, ..BOUNDS }).unwrap();
    disk.with(|disk| disk.free = 5_100);
    assert!(matches!(append(&store, vec![entry(1, 300)]), Err(SpoolError::Full)));
    disk.with(|disk| disk.free = 6_000);
    append(&store, vec![entry(1, 300)]).unwrap();
}

#[test]
fn a_failed_write_leaves_nothing_behind_and_the_next_one_works() {
    let disk = SimDisk::new(9);
    let (store, _) = Store::open(disk.clone(), BOUNDS).unwrap();
    append(&store, vec![entry(1, 10)]).unwrap();
    disk.with(|disk| disk.flaky = 1);
    for name in 2..5 {
        assert!(matches!(append(&store, vec![entry(name, 10)]), Err(SpoolError::Unwritable(_))));
    }
    disk.with(|disk| disk.flaky = 0);
    append(&store, vec![entry(5, 10)]).unwrap();
    let names = |store: &Store<SimDisk>| left(store).iter().map(|(_, name)| *name).collect::<Vec<_>>();
    assert_eq!(names(&store), [1, 5]);
    drop(store);
    let (store, recovered) = Store::open(disk, BOUNDS).unwrap();
    assert_eq!((names(&store), recovered.torn, recovered.set_aside), (vec![1, 5], 0, 0));
}

#[test]
fn a_damaged_segment_is_set_aside_and_what_is_sound_is_still_drained() {
    for is_open in [true, false] {
        let disk = SimDisk::new(3);
        let (store, _) = Store::open(disk.clone(), BOUNDS).unwrap();
        for name in 0..10 {
            append(&store, vec![entry(name, 150)]).unwrap();
        }
        let segment = store.index.lock().unwrap().segments[1];
        disk.with(|disk| {
            let file = disk.file(&segment.name()).unwrap();
            let last = file.now.len() - 3;
            file.now[last] ^= 1;
            file.synced = file.now.clone();
        });
        let (store, set_aside, lost) = if is_open {
            (store, 0, 1)
        } else {
            drop(store);
            let (store, recovered) = Store::open(disk.clone(), BOUNDS).unwrap();
            (store, recovered.set_aside, 0)
        };
        let (mut place, mut names, mut sum) = (Place::default(), Vec::new(), Chunk::default());
        loop {
            let chunk = store.read(&mut place, 100).unwrap();
            sum.lost += chunk.lost;
            sum.set_aside += chunk.set_aside;
            if chunk.records.is_empty() {
                break;
            }
            names.extend(chunk.records.iter().map(|record| named(record).1));
        }
        assert_eq!((set_aside + sum.set_aside, sum.lost), (1, lost));
        assert_eq!(names.len(), 9, "{names:?}");
        assert!(names.is_sorted());
        // The damaged bytes are kept as they are, and count against the bound.
        assert!(disk.with(|disk| disk.names.contains_key(&format!("{}{CORRUPT}", segment.name()))));
        assert!(store.bytes() > segment.bytes);
    }
}

#[test]
fn a_damaged_cursor_costs_a_repetition_and_nothing_else() {
    let disk = SimDisk::new(4);
    let (store, _) = Store::open(disk.clone(), BOUNDS).unwrap();
    let first = append(&store, vec![entry(1, 10), entry(2, 10)]).unwrap().first;
    store.note_drained(first).unwrap();
    drop(store);
    assert_eq!(Store::open(disk.clone(), BOUNDS).unwrap().1.records, 1);
    disk.with(|disk| disk.file(CURSOR).unwrap().now[12] ^= 1);
    let (store, recovered) = Store::open(disk, BOUNDS).unwrap();
    assert_eq!(recovered.records, 2);
    assert!(append(&store, vec![entry(3, 10)]).unwrap().first > first + 1);
}

#[test]
fn a_real_folder_is_found_again_as_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(super::super::disk::Folder::new(folder.path()), BOUNDS).unwrap();
    let (store, recovered) = open();
    assert_eq!(recovered, Recovered::default());
    let requests = (1..=9).map(|name| vec![entry(name, 150)]).collect();
    let mut last = 0;
    let outcomes = store.append(requests, |_, appended| last = appended.first);
    assert!(outcomes.iter().all(Result::is_ok));
    store.note_drained(last - 4).unwrap();
    drop(store);
    let (store, recovered) = open();
    assert_eq!((recovered.records, recovered.torn, recovered.set_aside), (4, 0, 0));
    let chunk = store.read(&mut Place::after(store.drained()), usize::MAX).unwrap();
    assert_eq!(chunk.records.iter().map(|record| named(record).1).collect::<Vec<_>>(), [6, 7, 8, 9]);
    store.release(last).unwrap();
    assert_eq!(store.bytes(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the cursor is left");
}
