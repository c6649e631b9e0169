//! The spool in front of a Kafka that is not there.

use fleetlog_log::KafkaConfig;
use fleetlog_runtime::Shutdown;

use super::*;

/// A spool without room, and a producer that reaches nobody and gives up after so many milliseconds, or never.
fn without_room(folder: &Path, give_up_ms: u32) -> (Arc<Spool>, Producer) {
    let config = GatewayConfig {
        spool_path: folder.display().to_string(),
        spool_after_ms: 10,
        spool_min_free_bytes: u64::MAX,
        ..GatewayConfig::default()
    };
    let spool = Spool::open(&config, Clock::system()).unwrap().unwrap();
    let nowhere = KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),
        delivery_timeout_ms: give_up_ms,
        ..KafkaConfig::default()
    };
    (spool, Producer::new(&nowhere, topic::RAW_MAX_MESSAGE_BYTES).unwrap())
}

async fn publish(spool: &Arc<Spool>, producer: &Producer) -> Result<Stored, Refusal> {
    let batch = RawBatch { received_at: 1, ..RawBatch::default() };
    spool.publish(producer, vec![batch], Target::Spread).await
}

#[tokio::test]
async fn a_folder_is_free_at_once_though_a_process_being_started_still_has_a_copy_of_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = without_room(folder.path(), 0);
    let inherited = spool.lock.try_clone().unwrap();
    drop(spool);
    without_room(folder.path(), 0);
    drop(inherited);
}

#[tokio::test]
async fn repeats_of_a_refused_request_are_not_queued_for_kafka_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, producer) = without_room(folder.path(), 0);
    for _ in 0..3 {
        assert!(matches!(publish(&spool, &producer).await, Err(Refusal::SpoolFull)));
        assert_eq!(producer.in_flight(), 1);
    }
}

#[tokio::test]
async fn once_kafka_has_settled_what_was_refused_requests_go_to_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, producer) = without_room(folder.path(), 100);
    let shutdown = Shutdown::new();
    let drain = Arc::clone(&spool).drain(producer.clone(), 1, Duration::ZERO, shutdown.clone());
    let requests = async {
        assert!(matches!(publish(&spool, &producer).await, Err(Refusal::SpoolFull)));
        let mut course = spool.course.subscribe();
        let direct = course.wait_for(|course| course.way() == Way::Direct);
        tokio::time::timeout(Duration::from_secs(30), direct).await.unwrap().unwrap();
        shutdown.trigger();
    };
    let (drained, ()) = tokio::join!(drain, requests);
    drained.unwrap();
}
