//! Goes on with files as they grow: what `tail -F` does, shipped.
//!
//! Every file is looked at again and again; nothing is read of one that has not changed. A file that was replaced is
//! read to its end before the one in its place is begun; one that was cut off or written anew is begun again. Of a file
//! that nobody writes to any more no handle is kept.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetlog_runtime::Shutdown;

use crate::chunk::LastLine;
use crate::courier::Courier;
use crate::error::ShipError;
use crate::ship::{Options, Outcome, Progress};
use crate::shipment::{Shipment, begins_with_a_line};
use crate::walk::files_in;

/// How long after a look at all files the next one begins.
const PAUSE: Duration = Duration::from_millis(500);
/// Looks after which folders are searched for new files.
const LOOKS_PER_SEARCH: u32 = 10;
/// Looks without a change after which a file's handle is closed.
const LOOKS_UNTIL_IDLE: u32 = 120;
/// Most handles kept open; beyond it each is closed after its look.
const MAX_OPEN: usize = 256;

/// What became of a file that was followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// What was shipped of it.
    pub outcome: Outcome,
    /// Why it could not be read, the last time that it could not.
    pub fault: Option<String>,
}

/// Ships files and the files of folders, and what is added to them, until it is told to stop.
///
/// # Errors
/// What keeps every file from being shipped: the key, the address, the checkpoints. A file that cannot be read is
/// tried again and costs no other.
///
/// # Cancellation
/// Triggering `shutdown` ends it after the chunk at hand, with what became of each file.
pub async fn follow(
    paths: &[PathBuf],
    options: &Options,
    shutdown: &Shutdown,
    report: impl FnMut(&Path, Progress),
) -> Result<BTreeMap<PathBuf, Followed>, ShipError> {
    follow_every(PAUSE, paths, options, shutdown, report).await
}

async fn follow_every(
    pause: Duration,
    paths: &[PathBuf],
    options: &Options,
    shutdown: &Shutdown,
    mut report: impl FnMut(&Path, Progress),
) -> Result<BTreeMap<PathBuf, Followed>, ShipError> {
    let courier = Courier::new(options, shutdown)?;
    let mut tails: BTreeMap<PathBuf, Tail> = BTreeMap::new();
    for look in 0_u32.. {
        if look % LOOKS_PER_SEARCH == 0 {
            for path in paths {
                // A path may come to be later.
                let found = if path.exists() { files_in(path)? } else { vec![path.clone()] };
                found.into_iter().for_each(|file| {
                    tails.entry(file).or_default();
                });
            }
        }
        for (path, tail) in &mut tails {
            match tail.look(path, &courier, options, &mut |progress| report(path, progress)).await {
                Ok(()) => {}
                Err(ShipError::Interrupted) => return Ok(followed(tails)),
                Err(
                    fault @ (ShipError::Read { .. } | ShipError::TooLarge { .. } | ShipError::TooMany { .. }),
                ) => {
                    tail.followed.fault = Some(fault.to_string());
                }
                Err(
                    fatal @ (ShipError::Checkpoint { .. } | ShipError::Denied(_) | ShipError::Unusable(_)),
                ) => {
                    return Err(fatal);
                }
            }
        }
        close_idle(&mut tails);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.triggered() => break,
        }
    }
    Ok(followed(tails))
}

fn followed(tails: BTreeMap<PathBuf, Tail>) -> BTreeMap<PathBuf, Followed> {
    let end = |(path, mut tail): (PathBuf, Tail)| {
        tail.settle();
        (path, tail.followed)
    };
    tails.into_iter().map(end).collect()
}

fn close_idle(tails: &mut BTreeMap<PathBuf, Tail>) {
    let open = |tail: &&mut Tail| tail.shipment.as_ref().is_some_and(Shipment::is_open);
    let crowded = tails.values_mut().filter(open).count() > MAX_OPEN;
    for tail in tails.values_mut().filter(|tail| crowded || tail.idle > LOOKS_UNTIL_IDLE) {
        if let Some(shipment) = &mut tail.shipment {
            shipment.close();
        }
    }
}

/// A file as it was when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// One path and the file that is found there.
#[derive(Debug, Default)]
struct Tail {
    shipment: Option<Shipment>,
    seen: Option<Stamp>,
    /// Looks since it last changed.
    idle: u32,
    followed: Followed,
}

impl Tail {
    /// Ships what has come since the last look.
    async fn look(
        &mut self,
        path: &Path,
        courier: &Courier<'_>,
        options: &Options,
        report: &mut impl FnMut(Progress),
    ) -> Result<(), ShipError> {
        // A folder that came to be later is searched like the others.
        let found = fs::metadata(path).ok().filter(Metadata::is_file);
        let stamp = found.as_ref().map(Stamp::of);
        if stamp == self.seen {
            self.idle = self.idle.saturating_add(1);
            return Ok(());
        }
        self.idle = 0;
        if let Some(shipment) = &mut self.shipment
            && !found.as_ref().is_some_and(|found| shipment.is(found))
        {
            if shipment.was_moved(found.as_ref()) {
                // Nobody completes its last line any more.
                shipment.advance(courier, options, LastLine::Take, report).await?;
            }
            self.settle();
        }
        if found.is_some()
            && (self.shipment.is_some() || self.begin(path, options, report)?)
            && let Some(shipment) = &mut self.shipment
        {
            shipment.advance(courier, options, LastLine::Await, report).await?;
        }
        self.followed.fault = None;
        // Taken before reading: what was added since shows at the next look.
        self.seen = stamp;
        Ok(())
    }

    /// Opens the file once it can be told what it holds; whether it could be.
    fn begin(
        &mut self,
        path: &Path,
        options: &Options,
        report: &mut impl FnMut(Progress),
    ) -> Result<bool, ShipError> {
        let unreadable = |source| ShipError::Read { path: path.to_owned(), source };
        if !begins_with_a_line(path).map_err(unreadable)? {
            return Ok(false);
        }
        let shipment = Shipment::open(path, options)?;
        let size = shipment.size().map_err(unreadable)?;
        report(Progress::Started { size, offset: shipment.offset() });
        self.shipment = Some(shipment);
        Ok(true)
    }

    /// Adds what the file at hand has come to.
    fn settle(&mut self) {
        if let Some(shipment) = self.shipment.take() {
            self.followed.outcome.add(shipment.outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use crate::CheckpointStore;
    use crate::gateway::{Gateway, Request};

    use super::*;

    /// Follows a folder until the gateway has got what is expected, then stops.
    async fn run(
        gateway: &Gateway,
        folder: &Path,
        script: impl FnOnce() -> Vec<Box<dyn FnOnce() + Send>>,
    ) -> BTreeMap<PathBuf, Followed> {
        let options =
            Options { checkpoints: Some(CheckpointStore::new(folder.join("state"))), ..gateway.options() };
        let shutdown = Shutdown::new();
        let paths = [folder.join("logs")];
        let follow = follow_every(Duration::from_millis(10), &paths, &options, &shutdown, |_, _| {});
        let steps = async {
            for step in script() {
                let before = gateway.requests().len();
                step();
                while gateway.requests().len() == before {
                    gateway.next_request().await;
                }
            }
            shutdown.trigger();
        };
        tokio::join!(follow, steps).0.unwrap()
    }

    fn append(path: &Path, text: &str) {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn line(uuid: u32) -> String {
        format!("{{\"type\":\"user\",\"sessionId\":\"s\",\"promptId\":\"t{uuid}\",\"uuid\":\"{uuid}\"}}\n")
    }

    fn bodies(requests: &[Request]) -> String {
        requests.iter().map(|request| request.body.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_appended_is_shipped_with_what_came_before_it_and_half_a_line_waits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logs/a.jsonl");
        fs::create_dir(folder.path().join("logs")).unwrap();
        let gateway = Gateway::start().await;
        let followed = run(&gateway, folder.path(), || {
            let steps = [line(1), line(2) + &line(3)[..9], line(3)[9..].to_owned() + "{\"never"];
            steps
                .into_iter()
                .map(|text| -> Box<dyn FnOnce() + Send> {
                    let file = file.clone();
                    Box::new(move || append(&file, &text))
                })
                .collect()
        })
        .await;
        let requests = gateway.requests();
        assert_eq!(bodies(&requests), line(1) + &line(2) + &line(3));
        let queries: Vec<_> =
            requests.iter().map(|request| (request.get("line"), request.get("turn"))).collect();
        assert_eq!(
            queries,
            [("0", ""), ("1", "t1"), ("2", "t2")].map(|(line, turn)| (line.into(), turn.into()))
        );
        assert_eq!(requests[1].path, "/v1/raw/claude.transcript");
        assert_eq!(followed.values().map(|followed| followed.outcome.accepted).sum::<u64>(), 3);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_finished_first_and_one_that_is_cut_off_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let file = logs.join("a.jsonl");
        append(&file, &line(1));
        let gateway = Gateway::start().await;
        run(&gateway, folder.path(), || {
            let (first, second, third) = (file.clone(), file.clone(), file.clone());
            vec![
                Box::new(|| {}),
                Box::new(move || {
                    append(&first, &line(2));
                    fs::rename(&first, first.with_extension("old")).unwrap();
                    append(&first, &line(3));
                }),
                Box::new(move || append(&second, &line(4))),
                Box::new(move || fs::write(&third, line(5)).unwrap()),
            ]
        })
        .await;
        let mut got: Vec<String> =
            bodies(&gateway.requests()).lines().map(|line| line.to_owned() + "\n").collect();
        got.dedup();
        assert_eq!(got.concat(), (1..=5).map(line).collect::<String>());
    }
}
