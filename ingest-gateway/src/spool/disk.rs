//! The few things that the spool asks of a folder. A trait, so that crashes and full disks can be simulated under the
//! very code that runs.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads may ask for all of a file without knowing its length.
const USUAL_READ_BYTES: usize = 1024 * 1024;

/// A flat folder of files.
pub(super) trait Disk: Send + Sync {
    /// Name and length of every file.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// At most `length` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes at `offset`, creating the file if need be. A failure may leave a part.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written to the file is on disk; its name may not be.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Returns when all names are on disk.
    fn sync_names(&self) -> io::Result<()>;
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Gives a file another name, in one step, in place of what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that does not exist is removed.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Bytes that the file system has left for this process.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A real folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The file written last: appends come in long rows.
    writing: Mutex<Option<(String, Arc<File>)>>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writing: Mutex::default() }
    }

    fn writable(&self, name: &str) -> io::Result<Arc<File>> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*writing
            && open == name
        {
            return Ok(Arc::clone(file));
        }
        let file = File::options().create(true).truncate(false).write(true).open(self.path.join(name))?;
        let file = Arc::new(file);
        *writing = Some((name.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    fn forget(&self, name: &str) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.take_if(|(open, _)| open == name);
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(length.min(USUAL_READ_BYTES));
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable(name)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.writable(name)?.sync_data()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.writable(name)?.set_len(length)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.forget(name);
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(crate::disk_watch::space(&self.path)?.free)
    }
}
