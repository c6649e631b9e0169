//! Configuration of the prices, shared by the services that compute costs.

use std::path::PathBuf;

use fleetlog_runtime::{SettingsError, config_section};

use crate::{BUILT_IN, PriceError, PriceTable};

config_section! {
    /// The price table.
    pub struct PricesConfig, "prices" {
        /// Price table of the operator's (TOML, as `crates/pricing/data/prices.toml`); where it has a price, that one
        /// holds before the one that ships. Empty for none. The processor and the aggregator need the same one.
        pub file: PathBuf = PathBuf::new(),
    }
}

impl PricesConfig {
    /// The table that is configured.
    ///
    /// # Errors
    /// [`SettingsError`] naming the file, the line and the field.
    pub fn table(&self) -> Result<PriceTable, SettingsError> {
        PriceTable::of_sheets(self.sheets()?.iter().map(String::as_str)).map_err(|e| self.invalid(&e))
    }

    /// Its texts, the preferred one first.
    ///
    /// # Errors
    /// [`SettingsError`] naming the file.
    pub fn sheets(&self) -> Result<Vec<String>, SettingsError> {
        let mut sheets = Vec::new();
        if !self.file.as_os_str().is_empty() {
            sheets.push(std::fs::read_to_string(&self.file).map_err(|e| self.invalid(&e.into()))?);
        }
        sheets.push(BUILT_IN.to_owned());
        Ok(sheets)
    }

    fn invalid(&self, error: &PriceError) -> SettingsError {
        SettingsError::Invalid {
            key: "prices.file".to_owned(),
            message: format!("{}: {error}", self.file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: PathBuf) -> String {
        PricesConfig { file }.table().unwrap_err().to_string()
    }

    #[test]
    fn a_price_file_that_cannot_be_used_is_refused_with_line_and_field() {
        let prices = tempfile::NamedTempFile::new().unwrap();
        let text =
            "version=\"1\"\nsource=\"\"\nlicence=\"\"\n[[price]]\nmodel=\"m\"\ninput=1.0\noutput=-1.0\n";
        std::fs::write(prices.path(), text).unwrap();
        let message = problem(prices.path().to_owned());
        assert!(message.contains("line 4: the price of m: output is negative"), "{message}");
        let message = problem(PathBuf::from("/nowhere/prices.toml"));
        assert!(message.contains("prices.file: /nowhere/prices.toml: cannot be read"), "{message}");
    }
}
