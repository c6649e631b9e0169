//! `fleetlog spools`: what gateways hold in their spools, and a way out for one that never returns.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fleetlog_log::{Admin, KafkaConfig, Producer, SpoolReader, forget_spool};
use fleetlog_schemas::record::SpoolStanding;

use crate::ConfigArgs;
use crate::moment::told;
use crate::output::{ListArgs, note, say};

/// A gateway that runs tells every second.
const LISTEN: Duration = Duration::from_secs(3);
/// A tombstone is a key.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

/// Lists what gateways hold in their spools, and forgets gateways that never return.
///
/// What a gateway holds is acknowledged and in no log, so no answer is said to be complete beyond it. A gateway that was
/// killed holds answers back at its last word until it runs again, because only its disk knows what it has accepted.
#[derive(Debug, Args)]
pub(crate) struct Spools {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the gateways with a spool, as each of them last told
    List(ListArgs),
    /// Forget a gateway that never returns: what it may hold is given up, and `complete_through` goes on without it
    Forget(Forget),
}

#[derive(Debug, Args)]
struct Forget {
    /// Id of the gateway
    gateway: String,
}

impl Spools {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let kafka: KafkaConfig = self.config.load()?.section(KafkaConfig::SECTION)?;
        Admin::new(&kafka)?.ensure_topics().await.with_context(|| format!("Kafka at {}", kafka.brokers))?;
        let reader = SpoolReader::open(&kafka)?;
        match self.action {
            Action::List(list) => {
                let spools = reader.standings().await?;
                spools.iter().for_each(|spool| say(&line(spool, list.json)));
                if spools.is_empty() {
                    note("no gateway has a spool");
                }
            }
            Action::Forget(forget) => {
                let id = forget.gateway.as_str();
                let before = of(&reader, id).await?;
                let Some(before) = before else {
                    bail!("there is no gateway {id:?}; `fleetlog spools list` shows all");
                };
                // Clocks differ; whether it goes on telling does not depend on them.
                tokio::time::sleep(LISTEN).await;
                if of(&reader, id).await?.is_some_and(|now| now != before) {
                    bail!("gateway {id:?} runs; what it holds is published as soon as Kafka takes it");
                }
                forget_spool(&Producer::new(&kafka, MESSAGE_MAX_BYTES)?, id)?.await?;
                note(&format!("forgotten: {}", line(&before, false)));
            }
        }
        Ok(())
    }
}

async fn of(reader: &SpoolReader, gateway_id: &str) -> anyhow::Result<Option<SpoolStanding>> {
    Ok(reader.standings().await?.into_iter().find(|spool| spool.gateway_id == gateway_id))
}

fn line(spool: &SpoolStanding, json: bool) -> String {
    let SpoolStanding { gateway_id, as_of, records, bytes, oldest } = spool;
    if json {
        return serde_json::json!({
            "gateway": gateway_id, "as_of": told(*as_of), "records": records, "bytes": bytes,
            "oldest": oldest.map(told),
        })
        .to_string();
    }
    let oldest = oldest.map_or_else(String::new, |oldest| format!(", the oldest of {}", told(oldest)));
    format!("{gateway_id:<40} as of {}: {records} messages, {bytes} bytes{oldest}", told(*as_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_said_with_what_it_holds_and_as_of_when() {
        const S: i64 = 1_000_000_000;
        let empty = SpoolStanding { gateway_id: "g".into(), as_of: 60 * S, ..SpoolStanding::default() };
        let said = format!("{:<40} as of 1970-01-01T00:01:00Z: 0 messages, 0 bytes", "g");
        assert_eq!(line(&empty, false), said);
        let full = SpoolStanding { records: 2, bytes: 9, oldest: Some(7 * S), ..empty };
        assert!(line(&full, false).ends_with("2 messages, 9 bytes, the oldest of 1970-01-01T00:00:07Z"));
        let json: serde_json::Value = serde_json::from_str(&line(&full, true)).unwrap();
        assert_eq!((&json["records"], &json["oldest"]), (&2.into(), &"1970-01-01T00:00:07Z".into()));
    }
}
