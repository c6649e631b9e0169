//! The engines on this machine: found, or fetched, verified and moved into place in one step.
//!
//! A folder of the cache is complete or absent: it is filled beside its place and renamed, under a lock, so that
//! concurrent runs fetch once and an interrupted fetch leaves nothing that could be taken for an engine.
//! Hashing 566 MB at each start would cost seconds, so a verified folder keeps a receipt with each file's size and
//! modification time; [`EngineCache::verify`] reads every byte again.

use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{EngineError, IoContext as _, Result};
use crate::fetch;
use crate::pins::{CHDB, KAFKA, Pin};
use crate::progress::{Progress, Task};
use crate::toolchain;

const RECEIPT: &str = "verified.json";

/// The folder that keeps the fetched engines.
#[derive(Debug, Clone)]
pub struct EngineCache {
    root: PathBuf,
}

/// Both engines, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engines {
    /// The folder with Kafka's jars.
    pub kafka_lib: PathBuf,
    /// The ClickHouse library.
    pub libchdb: PathBuf,
}

impl EngineCache {
    /// The cache of this user: `fleetlog/engines` below `FLEETLOG_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoCacheFolder`] when none of them is known.
    pub fn of_user() -> Result<Self> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = named("FLEETLOG_CACHE")
            .or_else(|| named("XDG_CACHE_HOME"))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .ok_or(EngineError::NoCacheFolder)?;
        // Tools are run in folders of their own, so a relative path would mean something else to them.
        let base = std::path::absolute(&base).context("resolve", &base)?;
        Ok(Self::at(base.join("fleetlog/engines")))
    }

    /// A cache in the given folder.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns both engines and fetches what is missing, both at once.
    ///
    /// Blocks for as long as a download takes; with everything in the cache it takes milliseconds and no network.
    ///
    /// # Errors
    ///
    /// Any [`EngineError`] about the platform, the tools, the download, the disk or a hash.
    pub fn locate_or_fetch(&self, progress: &Progress) -> Result<Engines> {
        // What cannot work is said before the first byte is loaded.
        if !is_verified(&KAFKA, &self.root.join(KAFKA.folder)) {
            toolchain::java_checked().and_then(|_| toolchain::maven())?;
        }
        if !is_verified(&CHDB, &self.root.join(CHDB.folder)) {
            toolchain::check_platform().and_then(|()| toolchain::npm())?;
        }
        thread::scope(|scope| {
            let kafka = scope.spawn(|| self.kafka(progress));
            let libchdb = self.libchdb(progress);
            let kafka_lib = kafka.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(Engines { kafka_lib, libchdb: libchdb? })
        })
    }

    /// Returns the folder with Kafka's jars, fetching them if needed. Blocks like
    /// [`locate_or_fetch`](Self::locate_or_fetch).
    ///
    /// # Errors
    ///
    /// As [`locate_or_fetch`](Self::locate_or_fetch).
    pub fn kafka(&self, progress: &Progress) -> Result<PathBuf> {
        self.provide(&KAFKA, progress, fetch::kafka)
    }

    /// Returns the path of the ClickHouse library, fetching it if needed. Blocks like
    /// [`locate_or_fetch`](Self::locate_or_fetch).
    ///
    /// # Errors
    ///
    /// As [`locate_or_fetch`](Self::locate_or_fetch), and [`EngineError::UnsupportedPlatform`] where the library
    /// does not exist.
    pub fn libchdb(&self, progress: &Progress) -> Result<PathBuf> {
        toolchain::check_platform()?;
        Ok(self.provide(&CHDB, progress, fetch::chdb)?.join("libchdb.so"))
    }

    /// Reads every byte of what is in the cache and compares it with the pins; fetches what is missing.
    ///
    /// # Errors
    ///
    /// [`EngineError::HashMismatch`] for the first file that differs.
    pub fn verify(&self, progress: &Progress) -> Result<Engines> {
        let engines = self.locate_or_fetch(progress)?;
        for pin in [&KAFKA, &CHDB] {
            check(pin, &self.root.join(pin.folder), progress)?;
        }
        Ok(engines)
    }

    fn provide(
        &self,
        pin: &Pin,
        progress: &Progress,
        fetch: impl Fn(&Path, &Progress) -> Result<PathBuf>,
    ) -> Result<PathBuf> {
        let place = self.root.join(pin.folder);
        if is_verified(pin, &place) {
            return Ok(place);
        }
        fs::create_dir_all(&self.root).context("create", &self.root)?;
        let _lock = self.lock(pin, progress)?;
        // Another run may have fetched it while this one waited for the lock.
        if is_verified(pin, &place) {
            return Ok(place);
        }
        self.clear_leftovers(pin)?;
        self.ensure_room(pin)?;
        let prefix = work_prefix(pin);
        let work =
            tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.root).context("create", &self.root)?;
        let fetched = fetch(work.path(), progress)?;
        check(pin, &fetched, progress)?;
        write_receipt(pin, &fetched)?;
        if place.exists() {
            // Something is there that is not verified: an older pin's file, or a touched one.
            fs::rename(&place, work.path().join("replaced")).context("move aside", &place)?;
        }
        fs::rename(&fetched, &place).context("move into place", &place)?;
        Ok(place)
    }

    /// Waits for the only right to write this engine's folder.
    fn lock(&self, pin: &Pin, progress: &Progress) -> Result<File> {
        let path = self.root.join(format!(".{}.lock", pin.folder));
        let file = File::options().create(true).append(true).open(&path).context("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let task = progress.task(pin.folder, None);
                file.lock().context("lock", &path)?;
                task.done("waited for another run that fetched it");
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
        }
        Ok(file)
    }

    /// Removes what an interrupted fetch left; only safe under the lock.
    fn clear_leftovers(&self, pin: &Pin) -> Result<()> {
        let prefix = work_prefix(pin);
        for entry in fs::read_dir(&self.root).context("read", &self.root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path()).context("remove", &entry.path())?;
            }
        }
        Ok(())
    }

    fn ensure_room(&self, pin: &Pin) -> Result<()> {
        // The tool's own cache keeps the packed files as well, often on the same disk.
        let needed = pin.bytes.saturating_mul(2);
        let stat = rustix::fs::statvfs(&self.root).context("read the free space of", &self.root)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= needed {
            return Ok(());
        }
        Err(EngineError::DiskFull {
            path: self.root.clone(),
            needed_mb: needed / 1_000_000,
            free_mb: free / 1_000_000,
        })
    }
}

fn work_prefix(pin: &Pin) -> String {
    format!(".fetch-{}-", pin.folder)
}

/// What was verified, and how its files looked then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Receipt {
    /// SHA-256 of the pinned manifest: a changed pin makes the receipt worthless.
    manifest: String,
    files: Vec<SeenFile>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SeenFile {
    name: String,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Receipt {
    /// The receipt that the folder would get now, without reading a byte of its files.
    fn of(pin: &Pin, folder: &Path) -> Result<Self> {
        let files = pin.files().map(|(_, name)| SeenFile::of(folder, name)).collect::<Result<_>>()?;
        Ok(Self { manifest: hex::encode(Sha256::digest(pin.manifest)), files })
    }
}

impl SeenFile {
    fn of(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let meta = fs::metadata(&path).context("read", &path)?;
        let (modified_s, modified_ns) = (meta.mtime(), meta.mtime_nsec());
        Ok(Self { name: name.to_owned(), bytes: meta.len(), modified_s, modified_ns })
    }
}

fn is_verified(pin: &Pin, place: &Path) -> bool {
    let kept =
        fs::read(place.join(RECEIPT)).ok().and_then(|bytes| serde_json::from_slice::<Receipt>(&bytes).ok());
    kept.is_some_and(|kept| Receipt::of(pin, place).is_ok_and(|now| now == kept))
}

fn write_receipt(pin: &Pin, folder: &Path) -> Result<()> {
    let path = folder.join(RECEIPT);
    let receipt = serde_json::to_vec(&Receipt::of(pin, folder)?).map_err(std::io::Error::from);
    fs::write(&path, receipt.context("encode", &path)?).context("write", &path)
}

/// Compares the folder with the pins: each file's bytes, and that no other jar came along on the class path.
fn check(pin: &Pin, folder: &Path, progress: &Progress) -> Result<()> {
    let mut task = progress.task(&format!("{} hashes", pin.engine), Some(pin.bytes));
    let mut done = 0;
    for (expected, name) in pin.files() {
        let path = folder.join(name);
        let found = hash(&path, &mut done, &mut task)?;
        if found != expected {
            return Err(EngineError::HashMismatch { path, expected: expected.to_owned(), found });
        }
    }
    for entry in fs::read_dir(folder).context("read", folder)?.flatten() {
        let name = entry.file_name();
        let is_jar = Path::new(&name).extension().is_some_and(|extension| extension == "jar");
        if is_jar && !pin.files().any(|(_, pinned)| name == *pinned) {
            let (expected, found) = ("no such file".to_owned(), "a file".to_owned());
            return Err(EngineError::HashMismatch { path: entry.path(), expected, found });
        }
    }
    task.done("as pinned");
    Ok(())
}

fn hash(path: &Path, done: &mut u64, task: &mut Task) -> Result<String> {
    let mut file = File::open(path).context("open", path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).context("read", path)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&chunk[..read]);
        *done += read as u64;
        task.update(*done, "comparing with the pinned hashes");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::pins::Engine;

    // SHA-256 of "abc", from FIPS 180-2.
    const PIN: Pin = Pin {
        engine: Engine::Kafka,
        folder: "toy-1",
        manifest: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.jar\n",
        bytes: 3,
    };

    fn deliver(content: &'static str) -> impl Fn(&Path, &Progress) -> Result<PathBuf> {
        move |work, _| {
            let folder = work.join("out");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("a.jar"), content).unwrap();
            Ok(folder)
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_second_run_finds_the_engine_without_fetching() {
        let root = tempfile::tempdir().unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        let place = cache.provide(&PIN, &Progress::quiet(), deliver("abc")).unwrap();
        let again = cache.provide(&PIN, &Progress::quiet(), |_, _| panic!("fetched twice")).unwrap();
        assert_eq!((place.clone(), names(root.path())), (again, vec![".toy-1.lock".into(), "toy-1".into()]));
        assert_eq!(fs::read(place.join("a.jar")).unwrap(), b"abc");
    }

    #[test]
    fn wrong_bytes_never_reach_their_place() {
        let root = tempfile::tempdir().unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        let error = cache.provide(&PIN, &Progress::quiet(), deliver("abd")).unwrap_err();
        assert!(matches!(error, EngineError::HashMismatch { .. }), "{error}");
        assert_eq!(names(root.path()), [".toy-1.lock"]);
    }

    #[test]
    fn a_jar_that_is_not_pinned_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        let fetch = |work: &Path, progress: &Progress| {
            let folder = deliver("abc")(work, progress)?;
            fs::write(folder.join("stowaway.jar"), "").unwrap();
            Ok(folder)
        };
        let error = cache.provide(&PIN, &Progress::quiet(), fetch).unwrap_err();
        assert!(error.to_string().contains("stowaway.jar"), "{error}");
    }

    #[test]
    fn a_touched_file_is_fetched_again() {
        let root = tempfile::tempdir().unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        let place = cache.provide(&PIN, &Progress::quiet(), deliver("abc")).unwrap();
        fs::write(place.join("a.jar"), "abcd").unwrap();
        cache.provide(&PIN, &Progress::quiet(), deliver("abc")).unwrap();
        assert_eq!(fs::read(place.join("a.jar")).unwrap(), b"abc");
        assert_eq!(names(root.path()), [".toy-1.lock", "toy-1"]);
    }

    #[test]
    fn an_interrupted_fetch_leaves_nothing_that_counts() {
        let root = tempfile::tempdir().unwrap();
        let leftover = root.path().join(".fetch-toy-1-abcdef");
        fs::create_dir_all(leftover.join("out")).unwrap();
        fs::create_dir(root.path().join("toy-1")).unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        cache.provide(&PIN, &Progress::quiet(), deliver("abc")).unwrap();
        assert_eq!(names(root.path()), [".toy-1.lock", "toy-1"]);
    }

    #[test]
    fn concurrent_runs_fetch_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = EngineCache::at(root.path().to_owned());
        let fetches = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fetch = |work: &Path, progress: &Progress| {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        deliver("abc")(work, progress)
                    };
                    cache.provide(&PIN, &Progress::quiet(), fetch).unwrap();
                });
            }
        });
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }
}
