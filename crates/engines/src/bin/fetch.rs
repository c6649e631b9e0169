//! `fleetlog-engines fetch|verify`: brings the pinned engines into the cache, or checks every byte of them.

use std::process::ExitCode;

use fleetlog_engines::{EngineCache, Engines, Progress, Result};

const USAGE: &str = "Brings the pinned Kafka and ClickHouse engines onto this machine.

Usage: fleetlog-engines fetch     fetch what is missing from the cache, and verify it
       fleetlog-engines verify    also compare every byte in the cache with the pinned hashes

The cache is `fleetlog/engines` below FLEETLOG_CACHE, else XDG_CACHE_HOME, else ~/.cache.
";

#[expect(clippy::print_stdout, reason = "the paths are this command's output")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["fetch"] => provide(EngineCache::locate_or_fetch),
        ["verify"] => provide(EngineCache::verify),
        ["-h" | "--help" | "help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(engines) => {
            println!("kafka       {}", engines.kafka_lib.display());
            println!("clickhouse  {}", engines.libchdb.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn provide(work: fn(&EngineCache, &Progress) -> Result<Engines>) -> Result<Engines> {
    work(&EngineCache::of_user()?, &Progress::stderr())
}
