//! ClickHouse's HTTP interface, as an analyst's tool uses it.

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

/// A ClickHouse, asked without any confinement.
pub struct ClickHouse {
    http: reqwest::Client,
    url: String,
}

impl ClickHouse {
    /// The one at this base URL.
    pub fn at(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.to_owned() }
    }

    /// Its time, as the query API writes times: later ones are greater as texts, too.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn now(&self) -> Result<String> {
        let [now] = self.select_one::<[String; 1]>("SELECT toString(now64(9, 'UTC'))", &[]).await?;
        Ok(format!("{}Z", now.replace(' ', "T")))
    }

    /// Runs a query with `{name:Type}` parameters and returns its rows, each a tuple of its columns.
    ///
    /// # Errors
    /// ClickHouse's, or when a row is not a `T`.
    pub async fn select<T: DeserializeOwned>(
        &self,
        sql: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        let mut query = vec![
            ("database".to_owned(), "fleetlog"),
            ("default_format".to_owned(), "JSONCompactEachRow"),
            ("output_format_json_quote_64bit_integers".to_owned(), "0"),
        ];
        query.extend(parameters.iter().map(|(name, value)| (format!("param_{name}"), *value)));
        let answer = self.http.post(&self.url).query(&query).body(sql.to_owned()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "ClickHouse: {status}: {text}\n{sql}");
        text.lines().map(|row| serde_json::from_str(row).with_context(|| format!("row {row}"))).collect()
    }

    /// As [`select`](Self::select), of a query that has exactly one row.
    ///
    /// # Errors
    /// As [`select`](Self::select), and when there is another number of rows.
    pub async fn select_one<T: DeserializeOwned>(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<T> {
        let mut rows = self.select(sql, parameters).await?;
        ensure!(rows.len() == 1, "{} rows from {sql}", rows.len());
        rows.pop().context("no row")
    }
}
