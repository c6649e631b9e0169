//! How far each file was acknowledged.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How far one file was acknowledged by one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Hash of the file's first bytes: a file that was replaced is another file.
    pub head: u64,
    /// How many bytes `head` covers.
    pub head_len: u64,
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
    pub fn file_of(&self, path: &Path, gateway: &str) -> PathBuf {
        let name =
            xxh3_64([path.as_os_str().as_encoded_bytes(), b"\0", gateway.as_bytes()].concat().as_slice());
        self.0.join(format!("{name:016x}.json"))
    }

    /// The checkpoint of a file whose beginning is `head`, if it still is the file that was shipped.
    pub fn load(&self, path: &Path, gateway: &str, head: &[u8]) -> Option<Checkpoint> {
        let text = fs::read(self.file_of(path, gateway)).ok()?;
        let checkpoint: Checkpoint = serde_json::from_slice(&text).ok()?;
        let covered = head.get(..usize::try_from(checkpoint.head_len).ok()?)?;
        (xxh3_64(covered) == checkpoint.head).then_some(checkpoint)
    }

    /// Replaces the checkpoint of a file, atomically.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn save(&self, gateway: &str, checkpoint: &Checkpoint) -> io::Result<()> {
        let target = self.file_of(&checkpoint.path, gateway);
        fs::create_dir_all(&self.0)?;
        let staged = target.with_extension("tmp");
        let mut file = fs::File::create(&staged)?;
        file.write_all(&serde_json::to_vec(checkpoint)?)?;
        file.sync_data()?;
        fs::rename(staged, target)
    }
}

/// The hash by which a file is recognised, and how many bytes it covers.
pub(crate) fn identify(head: &[u8]) -> (u64, u64) {
    // Only the first line (bounded): a file that is still growing keeps its identity.
    let line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
    let covered = head.get(..line.min(4096)).unwrap_or(head);
    (xxh3_64(covered), covered.len() as u64)
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
        let checkpoint = Checkpoint { path: path.into(), offset: 6, line: 1, refused: 0, head, head_len };
        store.save("http://g", &checkpoint).unwrap();
        assert_eq!(store.load(path, "http://g", b"first\nsecond\nthird\n"), Some(checkpoint));
        assert_eq!(store.load(path, "http://g", b"other\nsecond\n"), None);
        assert_eq!(store.load(path, "http://elsewhere", b"first\nsecond\n"), None);
    }
}
