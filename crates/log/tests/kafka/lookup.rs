//! Looking at a topic from outside of any group.

use std::time::Duration;

use fleetlog_log::Lookup;
use fleetlog_schemas::id::Position;
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use rdkafka::topic_partition_list::Offset;

use crate::node::on_kafka;

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_record_is_found_by_its_position_and_what_is_not_there_is_nothing() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        node.append(&topic, 0, &["a", "b", "c", "d"]).await;
        node.append(&topic, 1, &["z"]).await;
        let mut lookup = Lookup::open(&node.config(), &topic).unwrap();
        let mut read = async |partition, offset| {
            let record = lookup.record(Position { partition, offset }, WITHIN).await.unwrap();
            record.and_then(|record| record.payload).map(|payload| payload.to_vec())
        };
        // Back and forth: nothing that was fetched ahead is mistaken for what is asked for.
        for (partition, offset, expected) in [
            (0, 3, Some("d")),
            (0, 0, Some("a")),
            (1, 0, Some("z")),
            (0, 2, Some("c")),
            (0, 4, None),
            (1, 9, None),
            (7, 0, None),
        ] {
            assert_eq!(
                read(partition, offset).await,
                expected.map(|text| text.as_bytes().to_vec()),
                "{offset}"
            );
        }
        let mut until = TopicPartitionList::new();
        until.add_partition_offset(&topic, 0, Offset::Offset(2)).unwrap();
        node.admin().delete_records(&until, &AdminOptions::new()).await.unwrap();
        assert_eq!(read(0, 1).await, None, "deleted");
        assert_eq!(read(0, 2).await, Some(b"c".to_vec()));
        assert_eq!(lookup.log_range(0).await.unwrap(), 2..4);
        assert_eq!(lookup.offset_at_time(0, 0).await.unwrap(), Some(2));
        assert_eq!(lookup.offset_at_time(0, i64::MAX / 2).await.unwrap(), None);
    });
}
