//! Requests as any HTTP client makes them.

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::clickhouse::ClickHouse;
use crate::wait::{SOON, eventually};

/// An answer of the gateway or of the query API.
#[derive(Debug)]
pub struct Answer {
    /// What was asked.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    async fn of(request: String, answer: reqwest::Response) -> Result<Self> {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Self { request, status, headers, text: answer.text().await? })
    }

    /// The same answer, if it has this status.
    ///
    /// # Errors
    /// When it has another.
    pub fn expect_status(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "{}: {}, not {status}: {}", self.request, self.status, self.text);
        Ok(self)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{}: not JSON: {}", self.request, self.text))
    }
}

/// A holder of one API key.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    ingest: String,
    query: String,
    key: String,
}

impl Client {
    /// A client with this key; `ingest` and `query` are base URLs.
    pub fn new(ingest: &str, query: &str, key: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            ingest: ingest.to_owned(),
            query: query.to_owned(),
            key: key.to_owned(),
        }
    }

    /// The same holder, who sends to a gateway at another port of this machine.
    #[must_use]
    pub fn sending_to(&self, port: u16) -> Self {
        Self { ingest: format!("http://127.0.0.1:{port}"), ..self.clone() }
    }

    /// The API key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The gateway's base URL.
    pub fn ingest_url(&self) -> &str {
        &self.ingest
    }

    /// The query API's base URL.
    pub fn query_url(&self) -> &str {
        &self.query
    }

    /// Posts to the gateway.
    ///
    /// # Errors
    /// When no answer comes back; any status is an answer.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer> {
        let mut request = self.http.post(format!("{}{path}", self.ingest)).bearer_auth(&self.key).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let name = format!("POST {path}");
        let answer = request.send().await.with_context(|| name.clone())?;
        Answer::of(name, answer).await
    }

    /// Posts JSON to the gateway.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn post_json(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        self.post(path, &[("content-type", "application/json")], body).await
    }

    /// Gets from the query API.
    ///
    /// # Errors
    /// When no answer comes back.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer> {
        let request = self.http.get(format!("{}{path}", self.query)).bearer_auth(&self.key).query(parameters);
        let name = format!("GET {path} {parameters:?}");
        let answer = request.send().await.with_context(|| name.clone())?;
        Answer::of(name, answer).await
    }

    /// Waits until the query API proves that everything acknowledged before this call is stored, and returns what became
    /// of the records of the key's project (`/v1/completeness` with these parameters).
    ///
    /// # Errors
    /// When it does not say so in time, or says that something is lost.
    pub async fn settled(&self, clickhouse: &ClickHouse, parameters: &[(&str, &str)]) -> Result<Value> {
        let now = clickhouse.now().await?;
        eventually("everything acknowledged is stored", SOON, || async {
            let answer = self.read("/v1/completeness", parameters).await?;
            let settled = answer["settled_through"].as_str().unwrap_or_default();
            ensure!(
                settled >= now.as_str(),
                "settled through {settled:?} at {now}: {}",
                answer["partitions"]
            );
            ensure!(
                answer["complete_through"] == answer["settled_through"],
                "lost: {}",
                answer["partitions"]
            );
            Ok(answer)
        })
        .await
    }

    /// Gets JSON with status 200 from the query API.
    ///
    /// # Errors
    /// When the answer is anything else.
    pub async fn read(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        self.get(path, parameters).await?.expect_status(200)?.json()
    }
}
