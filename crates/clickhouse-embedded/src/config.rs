//! What the operator chooses, and the engine's own configuration files made from it.
//!
//! Layout of the data directory: `lock`, `config/` (written at every start) and `engine/` (the engine's data). The
//! engine always gets a configuration file, or it would pick up a `config.xml` of the working directory. The user's
//! grants leave out every privilege that reaches files or other hosts; a file with row filters is merged over them by the
//! engine, which reads everything under `users.d`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::error::StartError;

/// Serves ClickHouse's HTTP interface over the embedded engine, on this machine only.
#[derive(Debug, Clone, Parser)]
#[command(name = "fleetlog-clickhouse", version)]
pub struct Options {
    /// The engine's library, libchdb.so.
    #[arg(long, value_name = "FILE")]
    pub library: PathBuf,
    /// The directory that holds the data; made when missing, used by one process at a time.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: PathBuf,
    /// The loopback address to serve on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8123")]
    pub listen: SocketAddr,
    /// An XML file in the form of ClickHouse's users.xml, merged over the built-in one: row filters per table.
    #[arg(long, value_name = "FILE", conflicts_with = "config_file")]
    pub users_config: Option<PathBuf>,
    /// A complete configuration file for the engine, instead of the built-in one with its grants.
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The most memory that the engine may use, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    pub max_memory: u64,
    /// The largest result that is kept whole before it is sent, in bytes: formats that cannot be streamed, and
    /// `wait_end_of_query`.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub max_result_bytes: usize,
    /// The largest request body, unpacked, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    pub max_body_bytes: u64,
    /// The longest that a query may run unless it says otherwise, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub max_execution_time_s: u64,
    /// Queries that run at once; more wait, then get 503.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_concurrent_queries: u16,
    /// How long running queries may go on after a signal to stop, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain_s: u64,
    /// The database that a request means when it names none; made when missing.
    #[arg(long, value_name = "NAME", default_value = "fleetlog")]
    pub database: String,
    /// End when the parent process ends, however it does.
    #[arg(long)]
    pub exit_with_parent: bool,
}

/// The data directory, held by this process.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    /// Where the engine keeps its data.
    pub(crate) engine: PathBuf,
    /// The engine's configuration file.
    pub(crate) config_file: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory and writes the engine's configuration into it.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be written.
    pub(crate) fn take(options: &Options) -> Result<Self, StartError> {
        let fails = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| StartError::Data { path, source }
        };
        let root = options.data.as_path();
        fs::create_dir_all(root).map_err(fails(root))?;
        let root = root.canonicalize().map_err(fails(root))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(fails(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::DataInUse { path: root }),
            Err(TryLockError::Error(source)) => return Err(StartError::Data { path: lock_path, source }),
        }
        let engine = root.join("engine");
        fs::create_dir_all(&engine).map_err(fails(&engine))?;
        let config = root.join("config");
        let config_file = match &options.config_file {
            Some(given) => given.canonicalize().map_err(fails(given))?,
            None => write_config(&config, options).map_err(fails(&config))?,
        };
        Ok(Self { engine, config_file, _lock: lock })
    }
}

fn write_config(directory: &Path, options: &Options) -> io::Result<PathBuf> {
    let overrides = directory.join("users.d");
    fs::create_dir_all(&overrides)?;
    let filters = overrides.join("filters.xml");
    match &options.users_config {
        Some(given) => fs::write(&filters, fs::read(given)?)?,
        // Left from an earlier start, it would still apply.
        None => match fs::remove_file(&filters) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        },
    }
    let users = directory.join("users.xml");
    fs::write(&users, users_xml())?;
    let config = directory.join("config.xml");
    fs::write(&config, config_xml(directory, &users, options.max_memory))?;
    Ok(config)
}

fn config_xml(directory: &Path, users: &Path, max_memory: u64) -> String {
    let inside = |name: &str| escape(&format!("{}/", directory.join(name).display()));
    format!(
        "<clickhouse>\n  <users_config>{users}</users_config>\n  <timezone>UTC</timezone>\n  \
         <max_server_memory_usage>{max_memory}</max_server_memory_usage>\n  \
         <mark_cache_size>{mark_cache}</mark_cache_size>\n  \
         <user_files_path>{files}</user_files_path>\n  <user_scripts_path>{scripts}</user_scripts_path>\n\
         </clickhouse>\n",
        users = escape(&users.display().to_string()),
        mark_cache = max_memory / 16,
        files = inside("no_files"),
        scripts = inside("no_scripts"),
    )
}

/// The one user's grants: everything inside the engine, nothing that reaches files or other hosts.
fn users_xml() -> String {
    let grants = [
        "SHOW TABLES, SHOW COLUMNS, SHOW DATABASES, SHOW DICTIONARIES, SELECT, INSERT, ALTER",
        "CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE DICTIONARY, CREATE TEMPORARY TABLE",
        "DROP, TRUNCATE, OPTIMIZE, CHECK, UNDROP TABLE, KILL QUERY, dictGet",
        "SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM MOVES, SYSTEM FLUSH, SYSTEM VIEWS, SYSTEM RELOAD DICTIONARY",
        "SYSTEM DROP CACHE",
    ]
    .join(", ");
    format!(
        "<clickhouse>\n  <profiles><default><async_insert>0</async_insert></default></profiles>\n  <quotas><default/></quotas>\n  <users>\n    <default>\n      \
         <password></password>\n      <networks><ip>::/0</ip></networks>\n      <profile>default</profile>\n      \
         <quota>default</quota>\n      <grants><query>GRANT {grants} ON *.*</query></grants>\n    </default>\n  \
         </users>\n</clickhouse>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> Options {
        let data = directory.join("a & b");
        Options::parse_from(["fleetlog-clickhouse", "--library", "x", "--data", &data.to_string_lossy()])
    }

    #[test]
    fn directory_serves_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let first = DataDirectory::take(&options).unwrap();
        assert!(matches!(DataDirectory::take(&options), Err(StartError::DataInUse { .. })));
        drop(first);
        let again = DataDirectory::take(&options).unwrap();
        let config = fs::read_to_string(&again.config_file).unwrap();
        assert!(config.contains("a &amp; b/config/users.xml"), "{config}");
    }

    #[test]
    fn filters_of_an_earlier_start_do_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let filters = directory.path().join("filters.xml");
        fs::write(&filters, "<clickhouse/>").unwrap();
        let without = options(directory.path());
        let with = Options { users_config: Some(filters), ..without.clone() };
        let written = |data: &DataDirectory| data.config_file.with_file_name("users.d").join("filters.xml");
        let data = DataDirectory::take(&with).unwrap();
        assert!(written(&data).exists());
        drop(data);
        let data = DataDirectory::take(&without).unwrap();
        assert!(!written(&data).exists());
    }
}
