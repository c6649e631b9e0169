//! What gateways told of their spools, as it is read while they go on telling.

use fleetlog_log::{Producer, SpoolReader, forget_spool, tell_spool};
use fleetlog_schemas::record::SpoolStanding;

use crate::node::on_kafka;

fn standing(gateway_id: &str, as_of: i64) -> SpoolStanding {
    SpoolStanding { gateway_id: gateway_id.to_owned(), as_of, ..SpoolStanding::default() }
}

#[test]
fn what_was_acknowledged_before_it_is_asked_for_is_in_the_answer() {
    on_kafka(|node| async move {
        let reader = SpoolReader::open(&node.config()).unwrap();
        // A topic that was just created is not led for a moment.
        let nothing = loop {
            if let Ok(standings) = reader.standings().await {
                break standings;
            }
        };
        assert_eq!(nothing, []);
        let producer = Producer::new(&node.config(), 1_000_000).unwrap();
        let tell = async |word: SpoolStanding| tell_spool(&producer, &word).unwrap().await.unwrap();
        tell(standing("b", 1)).await;
        for as_of in 1..50 {
            tell(standing("a", as_of)).await;
            assert_eq!(reader.standings().await.unwrap(), [standing("a", as_of), standing("b", 1)]);
        }
        forget_spool(&producer, "b").unwrap().await.unwrap();
        assert_eq!(reader.standings().await.unwrap(), [standing("a", 49)]);
        let late = SpoolReader::open(&node.config()).unwrap();
        assert_eq!(late.standings().await.unwrap(), [standing("a", 49)]);
    });
}
