//! Layered settings: defaults < file (TOML) < environment (`FLEETLOG__SECTION__KEY`) < flags.
//!
//! One file serves all services; each reads its own sections. A section or key that nobody knows is an error at
//! start, because a misspelt limit that is silently ignored is worse than none.

use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read or parsed.
    #[error("cannot read the configuration {path}: {message}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A section has a key that does not exist, or a value of the wrong type.
    #[error("configuration section [{section}]: {message}")]
    Section {
        /// The section.
        section: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A section that no service knows.
    #[error("unknown configuration section [{section}]; known are: {known}")]
    UnknownSection {
        /// The section.
        section: String,
        /// The known ones.
        known: String,
    },
    /// A value is well-formed and makes no sense.
    #[error("configuration {key}: {message}")]
    Invalid {
        /// The key, with its section.
        key: String,
        /// Why, and what would be right.
        message: String,
    },
}

/// Documentation of one key, for the generated table.
#[derive(Clone, Debug)]
pub struct KeyDoc {
    /// Section and key.
    pub key: String,
    /// The default, as JSON.
    pub default: String,
    /// What it does.
    pub doc: String,
}

/// Every section any service of Fleetlog reads.
pub const SECTIONS: &[&str] = &[
    "admin",
    "aggregator",
    "clickhouse",
    "engines",
    "gateway",
    "kafka",
    "prices",
    "processor",
    "query",
    "telemetry",
];

/// The merged layers, from which each service takes its sections.
#[derive(Clone, Debug)]
pub struct Settings(Config);

impl Settings {
    /// Merges the file, the environment and `overrides` (`section.key=value`).
    ///
    /// # Errors
    /// [`SettingsError`] when a layer cannot be read or names a section that no service knows.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, SettingsError> {
        let unreadable = |e: ConfigError| SettingsError::Unreadable {
            path: file.map_or_else(|| PathBuf::from("environment"), Path::to_owned),
            message: e.to_string(),
        };
        let mut builder = Config::builder();
        if let Some(path) = file {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml));
        }
        let environment =
            Environment::with_prefix("FLEETLOG").prefix_separator("__").separator("__").try_parsing(true);
        builder = builder.add_source(environment);
        for pair in overrides {
            let (key, value) = pair.split_once('=').ok_or_else(|| SettingsError::Invalid {
                key: pair.clone(),
                message: "expected section.key=value".to_owned(),
            })?;
            builder = builder.set_override(key, scalar(value)).map_err(unreadable)?;
        }
        let merged = builder.build().map_err(unreadable)?;
        let table: std::collections::HashMap<String, serde_json::Value> =
            merged.clone().try_deserialize().map_err(unreadable)?;
        for section in table.keys() {
            if !SECTIONS.contains(&section.as_str()) {
                return Err(SettingsError::UnknownSection {
                    section: section.clone(),
                    known: SECTIONS.join(", "),
                });
            }
        }
        Ok(Self(merged))
    }

    /// Settings with defaults only, for tests and embedding.
    pub fn defaults() -> Self {
        Self(Config::default())
    }

    /// The same settings with some keys set above all layers.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] when a key is not `section.key`.
    pub fn with<'a>(self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Result<Self, SettingsError> {
        let invalid =
            |e: ConfigError| SettingsError::Invalid { key: "override".to_owned(), message: e.to_string() };
        let mut builder = Config::builder().add_source(self.0);
        for (key, value) in pairs {
            builder = builder.set_override(key, value).map_err(invalid)?;
        }
        Ok(Self(builder.build().map_err(invalid)?))
    }

    /// A text that some layer sets, or `None` where only the default would apply.
    pub fn text(&self, key: &str) -> Option<String> {
        self.0.get_string(key).ok()
    }

    /// One section, with defaults for what no layer sets.
    ///
    /// # Errors
    /// [`SettingsError::Section`] for an unknown key or a value of the wrong type.
    pub fn section<T: DeserializeOwned + Default>(&self, section: &'static str) -> Result<T, SettingsError> {
        match self.0.get::<T>(section) {
            Ok(value) => Ok(value),
            Err(ConfigError::NotFound(_)) => Ok(T::default()),
            Err(e) => Err(SettingsError::Section { section, message: e.to_string() }),
        }
    }
}

fn scalar(text: &str) -> config::Value {
    if let Ok(flag) = text.parse::<bool>() {
        flag.into()
    } else if let Ok(number) = text.parse::<i64>() {
        number.into()
    } else if let Ok(number) = text.parse::<f64>() {
        number.into()
    } else {
        text.into()
    }
}

/// Declares a section of the configuration: the struct, its defaults, and the documentation of its keys.
///
/// ```
/// fleetlog_runtime::config_section! {
///     /// What the section is about.
///     pub struct ExampleConfig, "gateway" {
///         /// Longest accepted body, bytes.
///         pub body_max_bytes: usize = 20 * 1024 * 1024,
///     }
/// }
/// assert_eq!(ExampleConfig::default().body_max_bytes, 20_971_520);
/// assert_eq!(ExampleConfig::keys()[0].key, "gateway.body_max_bytes");
/// ```
#[macro_export]
macro_rules! config_section {
    ($(#[$doc:meta])* pub struct $name:ident, $section:literal {
        $($(#[doc = $fdoc:literal])+ pub $field:ident: $ty:ty = $default:expr),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[doc = $fdoc])+ pub $field: $ty),+ }

        impl Default for $name {
            fn default() -> Self { Self { $($field: $default),+ } }
        }

        impl $name {
            /// The section's name in the file.
            pub const SECTION: &'static str = $section;

            /// Documentation of every key, in declaration order.
            pub fn keys() -> Vec<$crate::KeyDoc> {
                let defaults = Self::default();
                vec![$($crate::KeyDoc {
                    key: concat!($section, ".", stringify!($field)).to_owned(),
                    default: $crate::__private_json(&defaults.$field),
                    doc: concat!($($fdoc, "\n"),+).split_whitespace().collect::<Vec<_>>().join(" "),
                }),+]
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogFormat, TelemetryConfig};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = file("[telemetry]\nlog = \"warn\"\n");
        let load = |flags: &[String]| -> TelemetryConfig {
            Settings::load(Some(file.path()), flags).unwrap().section("telemetry").unwrap()
        };
        assert_eq!((load(&[]).log.as_str(), load(&[]).log_format), ("warn", LogFormat::Auto));
        assert_eq!(load(&["telemetry.log=debug".to_owned()]).log, "debug");
    }

    #[test]
    fn a_misspelt_key_or_section_is_an_error_that_names_it() {
        let key = file("[telemetry]\nlogg = \"warn\"\n");
        let settings = Settings::load(Some(key.path()), &[]).unwrap();
        let error = settings.section::<TelemetryConfig>("telemetry").unwrap_err();
        assert!(error.to_string().contains("logg"), "{error}");
        let section = file("[gatway]\nlimit = 1\n");
        let error = Settings::load(Some(section.path()), &[]).unwrap_err();
        assert!(error.to_string().contains("gatway"), "{error}");
    }
}
