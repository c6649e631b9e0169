//! Which engines, in exactly which version, with which bytes.

use std::fmt;

/// One of the two engines of the one-command run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Apache Kafka, run by Java.
    Kafka,
    /// ClickHouse.
    ClickHouse,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "Kafka",
            Self::ClickHouse => "ClickHouse",
        })
    }
}

/// What Maven is asked for.
pub(crate) const KAFKA_POM: &str = include_str!("../pins/pom.xml");

/// The npm package with the ClickHouse library, with its exact version.
pub(crate) const CHDB_PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";

/// Where npm puts the library, below the folder it installs into.
pub(crate) const CHDB_INSTALLED: &str = "node_modules/@chdb/lib-linux-x64-gnu/libchdb.so";

/// The unpacked size of the npm package, for the progress bar.
pub(crate) const CHDB_UNPACKED_BYTES: u64 = 569_042_837;

/// The files of one engine and their SHA-256, as pinned in this repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pin {
    /// The engine.
    pub(crate) engine: Engine,
    /// The folder in the cache; carries the version.
    pub(crate) folder: &'static str,
    /// `sha256sum`'s own format, one line a file.
    pub(crate) manifest: &'static str,
    /// All files together; what a fetch must find room for is twice that.
    pub(crate) bytes: u64,
}

/// Apache Kafka's run-time class path.
pub(crate) const KAFKA: Pin = Pin {
    engine: Engine::Kafka,
    folder: "kafka-4.3.1",
    manifest: include_str!("../pins/kafka-4.3.1.sha256"),
    bytes: 45_025_660,
};

/// The ClickHouse library.
pub(crate) const CHDB: Pin = Pin {
    engine: Engine::ClickHouse,
    folder: "chdb-26.7.3-stable.1",
    manifest: include_str!("../pins/chdb-26.7.3-stable.1.sha256"),
    bytes: 566_330_096,
};

impl Pin {
    /// The pinned files as (SHA-256 in hex, name).
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.manifest.lines().filter_map(|line| line.split_once("  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_line_is_a_sha256_and_a_bare_file_name() {
        for (pin, count) in [(KAFKA, 46), (CHDB, 1)] {
            let files: Vec<_> = pin.files().collect();
            assert_eq!(files.len(), count, "{}", pin.folder);
            assert_eq!(pin.manifest.lines().count(), count, "{}", pin.folder);
            for (hash, name) in files {
                assert!(hex::decode(hash).is_ok_and(|bytes| bytes.len() == 32), "{hash}");
                assert!(!name.contains('/') && !name.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn the_pom_asks_for_the_version_that_the_folder_names() {
        let version = KAFKA.folder.strip_prefix("kafka-").unwrap();
        assert!(KAFKA_POM.contains(&format!("<version>{version}</version>")));
        assert!(KAFKA.manifest.contains(&format!("kafka_2.13-{version}.jar")));
    }

    #[test]
    fn the_npm_package_is_the_version_that_the_folder_names() {
        let version = CHDB.folder.strip_prefix("chdb-").unwrap();
        assert!(CHDB_PACKAGE.ends_with(&format!("@{version}")));
    }
}
