//! Daily counts, told to and heard from the other gateways through the usage topic.

use std::time::Duration;

use fleetlog_log::{
    From, Isolation, KafkaConfig, LogError, Outgoing, Producer, Record, Tail, TailRead, Target,
};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::topic;
use fleetlog_schemas::usage::UsageCount;
use tokio::sync::watch;

use crate::allowance::{Allowances, Now};
use crate::metrics;
use crate::pipeline::Gateway;

/// Hears the counts of all gateways until shutdown; tells once when all that there were are heard.
///
/// # Errors
/// What ended the reading; passing errors are waited out.
pub(crate) async fn follow(
    kafka: &KafkaConfig,
    allowances: &Allowances,
    caught_up: watch::Sender<bool>,
    shutdown: &Shutdown,
) -> Result<(), LogError> {
    loop {
        let tail = Tail::open(kafka, topic::USAGE, [(0, From::Beginning)], Isolation::Committed)?;
        let ended = hear(&tail, allowances, &caught_up, shutdown).await;
        // Retention overtook the reader: what it deleted is of no use, and counts bear repetition.
        if !matches!(ended, Err(LogError::PositionGone { .. })) {
            return ended;
        }
    }
}

async fn hear(
    tail: &Tail,
    allowances: &Allowances,
    caught_up: &watch::Sender<bool>,
    shutdown: &Shutdown,
) -> Result<(), LogError> {
    loop {
        let read = tokio::select! {
            read = tail.next() => read?,
            () = shutdown.triggered() => return Ok(()),
        };
        match read {
            TailRead::Record(record) => apply(&record, allowances),
            TailRead::CaughtUp { .. } => {
                caught_up.send_replace(true);
            }
        }
    }
}

fn apply(record: &Record, allowances: &Allowances) {
    let Some(payload) = record.payload.as_deref() else { return };
    match serde_json::from_slice::<UsageCount>(payload) {
        Ok(count) => allowances.hear(count),
        Err(error) => tracing::warn!(position = %record.position, %error, "unreadable usage record"),
    }
}

/// Tells the others what has been accepted here, until shutdown.
pub(crate) async fn tell(gateway: &Gateway, every: Duration, shutdown: &Shutdown) {
    let telling = async {
        loop {
            tokio::time::sleep(every).await;
            tell_once(&gateway.producer, &gateway.allowances, gateway.now()).await;
        }
    };
    tokio::select! {
        () = telling => {}
        () = shutdown.triggered() => {}
    }
}

/// Tells what has not been told yet.
pub(crate) async fn tell_once(producer: &Producer, allowances: &Allowances, now: Now) {
    let counts = allowances.unsaid(now);
    let mut unsaid = counts.len();
    let sent = counts.into_iter().map(|count| (publish(producer, &count), count)).collect::<Vec<_>>();
    for (delivery, count) in sent {
        // What is not acknowledged is told again the next time.
        if let Ok(delivery) = delivery
            && delivery.await.is_ok()
        {
            allowances.said(count);
            unsaid -= 1;
        }
    }
    metrics::QUOTA_UNSAID.set(unsaid as f64);
}

fn publish(producer: &Producer, count: &UsageCount) -> Result<fleetlog_log::Delivery, LogError> {
    let payload = serde_json::to_vec(count).map_err(|e| LogError::Control(e.to_string()))?;
    let key = count.topic_key();
    producer.enqueue(Outgoing {
        topic: topic::USAGE,
        target: Target::Partition(0),
        key: Some(key.as_bytes()),
        payload: Some(&payload),
    })
}
