//! Segments on disk: appended to, read in order, and removed once all of their records are in Kafka.
//!
//! # Invariants
//! - What an append returned for is on disk, in front of everything appended later.
//! - Only what is on disk is read, so nothing is published that a crash could take back.
//! - A sequence is never given twice, over any crash: it is covered by a reservation on disk before it is used.
//! - What cannot be believed is never dropped unless it certainly was never acknowledged; it is set aside.
//!
//! Two locks, so that draining never waits for a sync: `writer` is held while the disk writes, `index` never is.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetlog_schemas::avro::to_single_object;
use fleetlog_schemas::record::RawBatch;
use thiserror::Error;

use super::disk::Disk;
use super::format::{HEADER_BYTES, Parsed, Record, Spot, header, parse, write};
use super::recovery::{Tail, scan};
use super::times::{Times, second_of};

const SEGMENT: &str = ".segment";
const CORRUPT: &str = ".corrupt";
const REFUSED: &str = ".refused";
const CURSOR: &str = "cursor";
const CURSOR_NEXT: &str = "cursor.next";
const CURSOR_MAGIC: [u8; 8] = *b"FLCURSR1";
const CURSOR_BYTES: usize = 28;
/// Sequences that one write of the cursor reserves.
const RESERVED: u64 = 1 << 20;

/// How much the spool may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of all files.
    pub(super) max_bytes: u64,
    /// Bytes that the file system must keep free.
    pub(super) min_free_bytes: u64,
    /// Length from which a further segment is begun.
    pub(super) segment_bytes: u64,
}

/// A message to be spooled.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its sequence is set when it is written.
    pub(super) batch: RawBatch,
    pub(super) target: Spot,
}

/// Why a request is not spooled; nothing of it is kept.
#[derive(Debug, Error)]
pub(super) enum SpoolError {
    /// It does not fit into the bounds.
    #[error("the spool is full")]
    Full,
    /// The disk does not take it, or an invariant of ours does not hold.
    #[error("the spool cannot be written: {0}")]
    Unwritable(String),
}

/// What a request became: the sequences of its messages, and the bytes they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) first: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Records still to be drained, and their bytes.
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// The seconds in which they were accepted.
    pub(super) held: Times,
    /// Segments whose tail was cut off.
    pub(super) torn: u64,
    /// Segments of which a part was set aside.
    pub(super) set_aside: u64,
}

/// Some records in order, and what could not be read among them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) records: Vec<Record>,
    /// Records that a damage took, and their bytes.
    pub(super) lost: u64,
    pub(super) lost_bytes: u64,
    pub(super) set_aside: u64,
}

/// Where a reader is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    segment: u64,
    offset: u64,
    /// Records of the segment read so far, and the sequence of the last of them.
    records: u64,
    seen: u64,
    /// Nothing up to this sequence is wanted.
    after: u64,
}

impl Place {
    /// Behind everything up to a sequence.
    pub(super) fn after(sequence: u64) -> Self {
        Self { after: sequence, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    last: u64,
    /// Bytes on disk that can be believed.
    bytes: u64,
    records: u64,
    is_open: bool,
}

impl Segment {
    fn name(&self) -> String {
        format!("{:020}{SEGMENT}", self.first)
    }
}

#[derive(Debug, Default)]
struct Index {
    segments: VecDeque<Segment>,
    /// Bytes of files that are set aside.
    aside_bytes: u64,
}

impl Index {
    fn bytes(&self) -> u64 {
        self.aside_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }
}

#[derive(Debug)]
struct Writer {
    next: u64,
    /// A file that a failed write left with too much in it, and the length it should have.
    uncut: Option<(String, u64)>,
}

/// What survives of the process beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// Everything up to here is in Kafka.
    drained: u64,
    /// No sequence above was ever given.
    reserved: u64,
}

/// The spool's files.
#[derive(Debug)]
pub(super) struct Store<D> {
    disk: D,
    bounds: Bounds,
    index: Mutex<Index>,
    writer: Mutex<Writer>,
    /// As it is on disk.
    cursor: Mutex<Cursor>,
}

impl<D: Disk> Store<D> {
    /// Takes stock of a folder: cuts off what a crash interrupted, sets aside what is damaged.
    ///
    /// # Errors
    /// The disk's; nothing is lost by one.
    pub(super) fn open(disk: D, bounds: Bounds) -> io::Result<(Self, Recovered)> {
        let files = disk.list()?;
        let cursor = read_cursor(&disk, &files)?;
        let mut firsts: Vec<u64> = files.iter().filter_map(|(name, _)| first_of(name)).collect();
        firsts.sort_unstable();
        let aside = |name: &str| name.ends_with(CORRUPT) || name.ends_with(REFUSED);
        let aside_bytes = files.iter().filter(|(name, _)| aside(name)).map(|(_, bytes)| bytes).sum();
        let store = Self {
            disk,
            bounds,
            index: Mutex::new(Index { segments: VecDeque::new(), aside_bytes }),
            writer: Mutex::new(Writer { next: 0, uncut: None }),
            cursor: Mutex::new(cursor),
        };
        let (mut recovered, mut highest) = (Recovered::default(), cursor.reserved.max(cursor.drained));
        for (place, first) in firsts.iter().enumerate() {
            let is_newest = place + 1 == firsts.len();
            let segment = store.recover(*first, is_newest, cursor.drained, &mut recovered)?;
            highest = highest.max(segment.last);
            if segment.last <= cursor.drained || segment.records == 0 {
                store.disk.remove(&segment.name())?;
            } else {
                lock(&store.index).segments.push_back(segment);
            }
        }
        lock(&store.writer).next = highest + 1;
        Ok((store, recovered))
    }

    fn recover(&self, first: u64, is_newest: bool, drained: u64, sum: &mut Recovered) -> io::Result<Segment> {
        let mut segment =
            Segment { first, last: first.saturating_sub(1), bytes: 0, records: 0, is_open: false };
        let name = segment.name();
        let bytes = self.disk.read(&name, 0, usize::MAX)?;
        let scanned = scan(&bytes, first, is_newest);
        segment.bytes = scanned.end as u64;
        segment.records = scanned.records.len() as u64;
        segment.last = scanned.records.last().map_or(segment.last, |record| record.sequence);
        match scanned.tail {
            Tail::Clean => {}
            Tail::Torn => {
                sum.torn += 1;
                let cut = bytes.len() - scanned.end;
                tracing::warn!(file = name, cut, "cut off what a crash interrupted; it was not acknowledged");
                self.disk.truncate(&name, segment.bytes)?;
                self.disk.sync(&name)?;
            }
            Tail::Corrupt => {
                sum.set_aside += 1;
                self.set_aside(&segment, &bytes)?;
            }
        }
        for record in scanned.records.iter().filter(|record| record.sequence > drained) {
            sum.records += 1;
            sum.bytes += record.bytes as u64;
            sum.held.add(second_of(record.received_at), 1);
        }
        Ok(segment)
    }

    /// Keeps a copy of a damaged segment and cuts the damage off.
    fn set_aside(&self, segment: &Segment, bytes: &[u8]) -> io::Result<()> {
        let name = segment.name();
        let copy = format!("{name}{CORRUPT}");
        tracing::error!(
            file = copy,
            sound_bytes = segment.bytes,
            after_sequence = segment.last,
            "the spool is damaged: what cannot be read is set aside and is not published"
        );
        self.keep(&copy, bytes)?;
        self.disk.truncate(&name, segment.bytes)?;
        self.disk.sync(&name)
    }

    /// Writes a file that is to stay for people to look at.
    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(name, 0, bytes)?;
        self.disk.truncate(name, bytes.len() as u64)?;
        self.disk.sync(name)?;
        self.disk.sync_names()?;
        lock(&self.index).aside_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes requests behind everything there is, each whole or not at all, and returns when they are on disk.
    ///
    /// `on_disk` is told of each request that is, by its place in `requests`, before any reader can see it.
    pub(super) fn append(
        &self,
        requests: Vec<Vec<Entry>>,
        mut on_disk: impl FnMut(usize, Appended),
    ) -> Vec<Result<(), SpoolError>> {
        let mut writer = lock(&self.writer);
        let prepared = match self.ready(&mut writer) {
            Ok(free) => self.encode(&mut writer, requests, free),
            Err(error) => return requests.iter().map(|_| Err(unwritable(&error))).collect(),
        };
        let written = self.write(&mut writer, &prepared);
        let mut outcomes = Vec::with_capacity(prepared.fits.len());
        for (place, fits) in prepared.fits.into_iter().enumerate() {
            outcomes.push(match (fits, &written) {
                (Ok(appended), Ok(_)) => {
                    on_disk(place, appended);
                    Ok(())
                }
                (Ok(_), Err(error)) => Err(unwritable(error)),
                (Err(error), _) => Err(error),
            });
        }
        if let Ok(Some(segment)) = written {
            let mut index = lock(&self.index);
            match index.segments.back_mut() {
                Some(open) if open.is_open && open.first == segment.first => *open = segment,
                _ => index.segments.push_back(segment),
            }
        }
        outcomes
    }

    /// The free bytes of a disk that can be written to.
    fn ready(&self, writer: &mut Writer) -> io::Result<u64> {
        if let Some((name, length)) = &writer.uncut {
            self.cut(name, *length)?;
            writer.uncut = None;
        }
        self.disk.free_bytes()
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        if length == 0 { self.disk.remove(name) } else { self.disk.truncate(name, length) }
    }

    fn encode(&self, writer: &mut Writer, requests: Vec<Vec<Entry>>, free: u64) -> Prepared {
        let used = lock(&self.index).bytes() + HEADER_BYTES as u64;
        let room =
            self.bounds.max_bytes.saturating_sub(used).min(free.saturating_sub(self.bounds.min_free_bytes));
        let mut prepared = Prepared { bytes: Vec::new(), first: writer.next, records: 0, fits: Vec::new() };
        for request in requests {
            let (start, first) = (prepared.bytes.len(), writer.next);
            let encoded = request.into_iter().try_for_each(|Entry { mut batch, target }| {
                if (prepared.bytes.len() + batch.payload.0.len()) as u64 > room {
                    return Err(SpoolError::Full);
                }
                let sequence = writer.next;
                writer.next += 1;
                batch.spool_sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
                let received_at = batch.received_at;
                let payload = to_single_object(&batch).map_err(|e| SpoolError::Unwritable(e.to_string()))?;
                write(&mut prepared.bytes, &Record { sequence, target, received_at, payload });
                if prepared.bytes.len() as u64 > room { Err(SpoolError::Full) } else { Ok(()) }
            });
            if encoded.is_err() {
                // What was given to it is given to the next: none of it was written.
                writer.next = first;
                prepared.bytes.truncate(start);
            }
            let (records, bytes) = (writer.next - first, (prepared.bytes.len() - start) as u64);
            prepared.records += records;
            prepared.fits.push(encoded.map(|()| Appended { first, records, bytes }));
        }
        prepared
    }

    /// Brings what is prepared to disk, and says what its segment is then.
    fn write(&self, writer: &mut Writer, prepared: &Prepared) -> io::Result<Option<Segment>> {
        if prepared.records == 0 {
            return Ok(None);
        }
        self.reserve(writer.next)?;
        let open = lock(&self.index).segments.back().copied();
        let (mut segment, head) =
            match open.filter(|last| last.is_open && last.bytes < self.bounds.segment_bytes) {
                Some(open) => (open, Vec::new()),
                None => {
                    self.seal();
                    let first = prepared.first;
                    let fresh = Segment { first, last: 0, bytes: 0, records: 0, is_open: true };
                    (fresh, header(first).to_vec())
                }
            };
        let (name, before) = (segment.name(), segment.bytes);
        let is_new = !head.is_empty();
        let written = || -> io::Result<u64> {
            self.disk.write(&name, before, &head)?;
            self.disk.write(&name, before + head.len() as u64, &prepared.bytes)?;
            self.disk.sync(&name)?;
            if is_new {
                self.disk.sync_names()?;
            }
            Ok(before + (head.len() + prepared.bytes.len()) as u64)
        };
        match written() {
            Ok(bytes) => {
                segment.bytes = bytes;
                segment.records += prepared.records;
                segment.last = writer.next - 1;
                Ok(Some(segment))
            }
            Err(error) => {
                // After a failed sync nothing is known of what was written since the last: it is taken back, and
                // nothing is appended behind it.
                self.seal();
                if self.cut(&name, before).is_err() {
                    writer.uncut = Some((name, before));
                }
                Err(error)
            }
        }
    }

    fn seal(&self) {
        if let Some(last) = lock(&self.index).segments.back_mut() {
            last.is_open = false;
        }
    }

    fn reserve(&self, next: u64) -> io::Result<()> {
        let mut cursor = lock(&self.cursor);
        if next <= cursor.reserved {
            return Ok(());
        }
        let wanted = Cursor { reserved: next + RESERVED, ..*cursor };
        self.write_cursor(wanted)?;
        *cursor = wanted;
        Ok(())
    }

    /// The next records behind `place`, at most about `max_bytes` of them but at least one if there is one.
    ///
    /// # Errors
    /// The disk's; `place` then stays.
    pub(super) fn read(&self, place: &mut Place, max_bytes: usize) -> io::Result<Chunk> {
        let mut chunk = Chunk::default();
        while chunk.records.is_empty() {
            let Some(segment) = self.segment_after(place) else { break };
            if segment.first != place.segment {
                let (first, offset) = (segment.first, HEADER_BYTES as u64);
                *place =
                    Place { segment: first, offset, records: 0, seen: first.saturating_sub(1), ..*place };
            }
            self.read_some(&segment, place, max_bytes, &mut chunk)?;
        }
        Ok(chunk)
    }

    fn segment_after(&self, place: &Place) -> Option<Segment> {
        lock(&self.index).segments.iter().find(|segment| segment.last > place.after).copied()
    }

    fn read_some(
        &self,
        segment: &Segment,
        place: &mut Place,
        max: usize,
        chunk: &mut Chunk,
    ) -> io::Result<()> {
        let name = segment.name();
        let left =
            |place: &Place| usize::try_from(segment.bytes.saturating_sub(place.offset)).unwrap_or(usize::MAX);
        let mut bytes = self.disk.read(&name, place.offset, left(place).min(max))?;
        let mut at = 0;
        loop {
            match parse(bytes.get(at..).unwrap_or_default(), place.seen) {
                Parsed::Record(record, length) => {
                    at += length;
                    place.offset += length as u64;
                    place.records += 1;
                    place.seen = record.sequence;
                    if record.sequence > place.after {
                        place.after = record.sequence;
                        chunk.records.push(record);
                    }
                }
                Parsed::Short(_) if left(place) == 0 => return Ok(()),
                Parsed::Short(needed) if needed <= left(place) && at > 0 => return Ok(()),
                Parsed::Short(needed) if needed <= left(place) && bytes.len() < needed => {
                    bytes = self.disk.read(&name, place.offset, needed)?;
                    if bytes.len() < needed {
                        return self.damaged(place, chunk);
                    }
                }
                Parsed::Short(_) | Parsed::Damaged => return self.damaged(place, chunk),
            }
        }
    }

    /// The segment was sound when it was written and is not any more, from `place` on.
    fn damaged(&self, place: &Place, chunk: &mut Chunk) -> io::Result<()> {
        // Nothing may be appended to it meanwhile.
        let _writer = lock(&self.writer);
        let found = lock(&self.index).segments.iter().find(|segment| segment.first == place.segment).copied();
        let Some(segment) = found else { return Ok(()) };
        let (bytes, records, last) = (place.offset, place.records, place.seen);
        let sound = Segment { bytes, records, last, is_open: false, ..segment };
        self.set_aside(&sound, &self.disk.read(&segment.name(), 0, usize::MAX)?)?;
        if let Some(entry) = lock(&self.index).segments.iter_mut().find(|entry| entry.first == segment.first)
        {
            *entry = sound;
        }
        chunk.lost += segment.records.saturating_sub(records);
        chunk.lost_bytes += segment.bytes.saturating_sub(bytes);
        chunk.set_aside += 1;
        Ok(())
    }

    /// Removes the segments all of whose records are drained.
    ///
    /// # Errors
    /// The disk's; what was not removed is then removed at the next start.
    pub(super) fn release(&self, drained: u64) -> io::Result<()> {
        loop {
            let done =
                lock(&self.index).segments.pop_front_if(|first| first.last <= drained && !first.is_open);
            let Some(segment) = done else { return Ok(()) };
            self.disk.remove(&segment.name())?;
        }
    }

    /// Whether a segment can be removed.
    pub(super) fn has_released(&self, drained: u64) -> bool {
        lock(&self.index).segments.front().is_some_and(|first| first.last <= drained && !first.is_open)
    }

    /// Removes also the segment that is written to, if all of it is drained.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub(super) fn release_all(&self, drained: u64) -> io::Result<()> {
        {
            let _writer = lock(&self.writer);
            let mut index = lock(&self.index);
            if let Some(open) = index.segments.back_mut().filter(|open| open.last <= drained) {
                open.is_open = false;
            }
        }
        self.release(drained)
    }

    /// Notes on disk how far it is drained.
    ///
    /// # Errors
    /// The disk's; after a crash more is then published again.
    pub(super) fn note_drained(&self, drained: u64) -> io::Result<()> {
        let mut cursor = lock(&self.cursor);
        if drained <= cursor.drained {
            return Ok(());
        }
        let wanted = Cursor { drained, ..*cursor };
        self.write_cursor(wanted)?;
        *cursor = wanted;
        Ok(())
    }

    /// Keeps a record that Kafka will never take.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn keep_refused(&self, record: &Record) -> io::Result<()> {
        self.keep(&format!("{:020}{REFUSED}", record.sequence), &record.payload)
    }

    /// Up to where it was drained when it was noted last.
    pub(super) fn drained(&self) -> u64 {
        lock(&self.cursor).drained
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.index).bytes()
    }

    fn write_cursor(&self, cursor: Cursor) -> io::Result<()> {
        self.disk.write(CURSOR_NEXT, 0, &cursor_bytes(cursor))?;
        self.disk.sync(CURSOR_NEXT)?;
        self.disk.rename(CURSOR_NEXT, CURSOR)?;
        self.disk.sync_names()
    }
}

/// Requests made ready to be written, and which of them fit.
struct Prepared {
    bytes: Vec<u8>,
    first: u64,
    records: u64,
    fits: Vec<Result<Appended, SpoolError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unwritable(error: &io::Error) -> SpoolError {
    SpoolError::Unwritable(error.to_string())
}

fn first_of(name: &str) -> Option<u64> {
    name.strip_suffix(SEGMENT)?.parse().ok()
}

fn cursor_bytes(cursor: Cursor) -> [u8; CURSOR_BYTES] {
    let mut bytes = [0; CURSOR_BYTES];
    let parts = [CURSOR_MAGIC, cursor.drained.to_le_bytes(), cursor.reserved.to_le_bytes()];
    let (numbers, crc) = bytes.split_at_mut(CURSOR_BYTES - 4);
    numbers.copy_from_slice(parts.as_flattened());
    crc.copy_from_slice(&crc32c::crc32c(numbers).to_le_bytes());
    bytes
}

/// A cursor that is missing or damaged drains everything there is once more, which is recognised (INV-5).
fn read_cursor(disk: &impl Disk, files: &[(String, u64)]) -> io::Result<Cursor> {
    if !files.iter().any(|(name, _)| name == CURSOR) {
        return Ok(Cursor::default());
    }
    let bytes = disk.read(CURSOR, 0, CURSOR_BYTES)?;
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let cursor = number(8).zip(number(16)).map(|(drained, reserved)| Cursor { drained, reserved });
    let sound = cursor.filter(|cursor| bytes == cursor_bytes(*cursor));
    if sound.is_none() {
        tracing::error!("the spool's cursor is damaged: what the spool holds is published once more");
    }
    Ok(sound.unwrap_or_default())
}

#[cfg(test)]
mod tests;
