//! Ends the session of a broker that runs no more.
//!
//! A controller takes a broker back only when the session of its last run has ended, and those of a node do not. So before
//! a start its controller runs alone for two seconds, with sessions that end at once. There is no client's answer and no
//! line of output that says that it is done: the record in the controller's own log is what the next run goes by.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::settings::controller_properties;
use super::{KafkaOptions, jvm, serve};
use crate::error::{IoContext as _, Result};
use crate::folder::DataFolder;

/// How long a controller that serves is given to end a session; there may be none.
const BUDGET: Duration = Duration::from_secs(5);
/// How often its log is read meanwhile: there is no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it may take to stop.
const STOP_BUDGET: Duration = Duration::from_secs(10);

/// Has the controller note that the broker of the last run, if there was one, is gone.
///
/// # Errors
///
/// When the controller does not start.
pub(super) async fn end_session(
    java: &Path,
    options: &KafkaOptions,
    folder: &DataFolder,
    controller: u16,
) -> Result<()> {
    let Some(log) = MetadataLog::end(&folder.path().join("data/__cluster_metadata-0"))? else {
        return Ok(());
    };
    let settings = folder.path().join("controller.properties");
    fs::write(&settings, controller_properties(controller)).context("write", &settings)?;
    let mut command = jvm(java, options, folder.path())?;
    // What pays only after a while costs it its two seconds.
    command.arg("-XX:TieredStopAtLevel=1");
    let process = serve(command, &settings, options, folder).await?;
    let deadline = Instant::now() + BUDGET;
    while !ends_session(&log.since()?) && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
    process.stop(STOP_BUDGET).await;
    Ok(())
}

/// A place in the controller's log.
struct MetadataLog {
    /// The segment that was written to.
    segment: PathBuf,
    /// Its length, bytes.
    length: u64,
}

impl MetadataLog {
    /// The end of the log in a folder; `None` when there is no log.
    fn end(folder: &Path) -> Result<Option<Self>> {
        let Some(segment) = segments(folder)?.pop() else { return Ok(None) };
        let length = fs::metadata(&segment).context("read", &segment)?.len();
        Ok(Some(Self { segment, length }))
    }

    /// What was written from here on.
    fn since(&self) -> Result<Vec<u8>> {
        let mut written = Vec::new();
        let folder = self.segment.parent().unwrap_or(Path::new(""));
        for segment in segments(folder)?.into_iter().filter(|segment| *segment >= self.segment) {
            let mut file = fs::File::open(&segment).context("open", &segment)?;
            if segment == self.segment {
                file.seek(SeekFrom::Start(self.length)).context("read", &segment)?;
            }
            file.read_to_end(&mut written).context("read", &segment)?;
        }
        Ok(written)
    }
}

/// The segments of a log, in order: Kafka names each after its first offset, in 20 digits.
fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).context("read", folder)? {
        let path = entry.context("read", folder)?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            segments.push(path);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Whether records of a controller's log hold one that fences the node's broker: a `BrokerRegistrationChangeRecord`, whose
/// value is a frame's version (1), the record's key (17) and version, the broker (int32), its epoch (int64), the number of
/// tagged fields, and the first of these, `Fenced` (tag 0), with its length and value.
fn ends_session(records: &[u8]) -> bool {
    records
        .windows(19)
        .any(|value| matches!(value, [1, 17, _, 0, 0, 0, 1, _, _, _, _, _, _, _, _, 1..=9, 0, 1, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_fences_is_told_from_one_that_takes_back_and_from_another_brokers() {
        // As Kafka 4.3.1 writes them, in the midst of others.
        let record = |version, broker, fenced| {
            let mut bytes = vec![0x00, 0x00, 0x2e, 0x01, 0x26, 0x01, 0x11, version, 0x00, 0x00, 0x00, broker];
            bytes.extend([0, 0, 0, 0, 0, 0, 0x03, 0x7b, 0x01, 0x00, 0x01, fenced, 0x00, 0x62, 0x00]);
            bytes
        };
        assert!(ends_session(&record(0, 1, 1)));
        assert!(ends_session(&record(3, 1, 1)));
        assert!(!ends_session(&record(0, 1, 0xff)));
        assert!(!ends_session(&record(0, 2, 1)));
        assert!(!ends_session(&[]));
    }

    #[test]
    fn what_was_written_since_is_read_across_segments() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        assert!(MetadataLog::end(folder.path()).unwrap().is_none());
        assert!(MetadataLog::end(&folder.path().join("none")).unwrap().is_none());
        write("00000000000000000000.log", b"old");
        write("00000000000000000007.log", b"before");
        write("00000000000000000007.index", b"index");
        let end = MetadataLog::end(folder.path()).unwrap().unwrap();
        assert!(end.since().unwrap().is_empty());
        write("00000000000000000007.log", b"before after");
        write("00000000000000000012.log", b" next");
        assert_eq!(end.since().unwrap(), b" after next");
    }
}
