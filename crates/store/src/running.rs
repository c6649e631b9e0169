//! What still runs on the node: the embedded engine's bridge knows it, a server lists it in `system.processes`.

use std::time::Duration;

use serde::Deserialize;

use crate::{Store, StoreError};

const WITHIN: Duration = Duration::from_secs(5);

/// The bridge's answer.
#[derive(Deserialize)]
struct Listing {
    running: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {}

impl Store {
    /// How many statements whose id begins so are under way on this node.
    ///
    /// # Errors
    /// Whatever keeps ClickHouse from telling: then nothing is known.
    pub(crate) async fn running(&self, query_id_prefix: &str) -> Result<u64, StoreError> {
        let failed = |e: reqwest::Error| StoreError::Unavailable(e.without_url().to_string());
        let request = self.http.get(&self.bridge_url).query(&[("query_id_prefix", query_id_prefix)]);
        let answer = request.timeout(WITHIN).send().await.map_err(failed)?;
        if answer.status().is_success() {
            let listing: Listing = answer.json().await.map_err(failed)?;
            return Ok(listing.running.len() as u64);
        }
        // A server has no such path.
        let sql = "SELECT count() FROM system.processes WHERE startsWith(query_id, {prefix:String})";
        let counts: Vec<u64> = self.read_with(sql, |query| query.param("prefix", query_id_prefix)).await?;
        Ok(counts.first().copied().unwrap_or(0))
    }
}
