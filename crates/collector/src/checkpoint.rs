//! How far each file was acknowledged.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fleetlog_schemas::record::StreamContext;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How far one file was acknowledged by one gateway under one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Bytes acknowledged.
    pub offset: u64,
    /// Lines acknowledged.
    pub line: u64,
    /// Records of them that the gateway refused for good.
    #[serde(default)]
    pub refused: u64,
    /// Hash of the file's first bytes, or of all of a document: a file that was replaced is another file.
    pub head: u64,
    /// How many bytes `head` covers.
    pub head_len: u64,
    /// What the lines acknowledged said that later ones need.
    #[serde(default)]
    pub stream: Option<StreamContext>,
}

/// To whom a file is shipped: what one gateway acknowledged under one key says nothing of another project's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver(String);

impl Receiver {
    /// The gateway at a URL, for the holder of a key. Of the key only its public id is kept.
    pub fn new(url: &str, key: &str) -> Self {
        let id = match key.strip_prefix("fl_").and_then(|rest| rest.split_once('_')) {
            Some((id, _)) => id.to_owned(),
            None => format!("{:016x}", xxh3_64(key.as_bytes())),
        };
        Self(format!("{}\0{id}", url.trim_end_matches('/')))
    }
}

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointStore(PathBuf);

impl CheckpointStore {
    /// Keeps checkpoints in `folder`, which is made when the first one is written.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The checkpoint's own file, for messages.
    pub fn file_of(&self, path: &Path, receiver: &Receiver) -> PathBuf {
        let name =
            xxh3_64([path.as_os_str().as_encoded_bytes(), b"\0", receiver.0.as_bytes()].concat().as_slice());
        self.0.join(format!("{name:016x}.json"))
    }

    /// The checkpoint of a file whose beginning is `head`, if it still is the file that was shipped.
    pub fn load(&self, path: &Path, receiver: &Receiver, head: &[u8]) -> Option<Checkpoint> {
        let text = fs::read(self.file_of(path, receiver)).ok()?;
        let checkpoint: Checkpoint = serde_json::from_slice(&text).ok()?;
        let covered = head.get(..usize::try_from(checkpoint.head_len).ok()?)?;
        (xxh3_64(covered) == checkpoint.head).then_some(checkpoint)
    }

    /// Replaces the checkpoint of a file, atomically.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn save(&self, receiver: &Receiver, checkpoint: &Checkpoint) -> io::Result<()> {
        let target = self.file_of(&checkpoint.path, receiver);
        fs::create_dir_all(&self.0)?;
        let staged = target.with_extension("tmp");
        let mut file = fs::File::create(&staged)?;
        file.write_all(&serde_json::to_vec(checkpoint)?)?;
        file.sync_data()?;
        fs::rename(staged, target)
    }
}

/// The hash by which a file of lines is recognised, and how many bytes it covers.
pub(crate) fn identify(head: &[u8]) -> (u64, u64) {
    // Only the first line (bounded): a file that is still growing keeps its identity.
    let line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
    let covered = head.get(..line.min(4096)).unwrap_or(head);
    (xxh3_64(covered), covered.len() as u64)
}

/// The hash by which a document is recognised: written anew, it is another.
pub(crate) fn identify_whole(document: &[u8]) -> (u64, u64) {
    (xxh3_64(document), document.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_starts_over_and_a_grown_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(folder.path().join("state"));
        let path = Path::new("a.jsonl");
        let (head, head_len) = identify(b"first\nsecond\n");
        let checkpoint =
            Checkpoint { path: path.into(), offset: 6, line: 1, head, head_len, ..Checkpoint::default() };
        let receiver = Receiver::new("http://g/", "fl_one_secret");
        store.save(&receiver, &checkpoint).unwrap();
        let load = |url: &str, key: &str, head: &[u8]| store.load(path, &Receiver::new(url, key), head);
        let grown = b"first\nsecond\nthird\n";
        assert_eq!(load("http://g", "fl_one_secret", grown), Some(checkpoint.clone()));
        assert_eq!(load("http://g", "fl_one_secret", b"other\nsecond\n"), None);
        assert_eq!(load("http://elsewhere", "fl_one_secret", grown), None);
        assert_eq!(load("http://g", "fl_two_secret", grown), None, "another key may be another project's");
        let text = fs::read_to_string(store.file_of(path, &receiver)).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }
}
