//! The files of a folder that may hold events.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ShipError;

/// Most files found in one folder; each costs some memory for as long as it is followed.
const MAX_FILES: usize = 10_000;
/// Deepest folder looked into.
const MAX_DEPTH: usize = 32;
/// Ends of the names of files that agents write.
const EXTENSIONS: &[&str] = &["jsonl", "ndjson", "json", "traj"];

/// A file itself, or all files of a folder and the folders within that agents may have written, by name. Links to
/// folders are not followed.
///
/// # Errors
/// The path cannot be read, or holds too many files. What lies deeper and cannot be read is left out.
pub fn files_in(path: &Path) -> Result<Vec<PathBuf>, ShipError> {
    let unreadable = |source| ShipError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    fs::read_dir(path).map_err(unreadable)?;
    let (mut files, mut folders) = (Vec::new(), vec![(path.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH {
                folders.push((entry.path(), depth + 1));
            } else if !kind.is_dir() && is_wanted(&entry.path()) {
                files.push(entry.path());
            }
        }
        if files.len() > MAX_FILES || folders.len() > MAX_FILES {
            return Err(ShipError::TooMany { path: path.to_owned(), limit: MAX_FILES });
        }
    }
    files.sort();
    Ok(files)
}

fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    // Claude Code keeps what it knows of a sub-agent beside its transcript.
    EXTENSIONS.contains(&&*ending) && !name.ends_with(".meta.json") && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_transcripts_within() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("p/s/subagents")).unwrap();
        for name in
            ["p/s.jsonl", "p/s/subagents/a.jsonl", "p/s/subagents/a.meta.json", "p/image.png", "chat.json"]
        {
            fs::write(at(name), "{}\n").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), at("p/loop")).unwrap();
        let found = files_in(folder.path()).unwrap();
        assert_eq!(found, [at("chat.json"), at("p/s/subagents/a.jsonl"), at("p/s.jsonl")].map(PathBuf::from));
        assert_eq!(files_in(&at("p/image.png")).unwrap(), [at("p/image.png")]);
        assert!(files_in(&at("nothing")).is_err());
    }
}
