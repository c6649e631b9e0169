//! Looking at where the logs and the groups stand, without joining any.

use fleetlog_log::{Consumer, ConsumerOptions, Isolation, Offsets};

use crate::node::on_kafka;

#[test]
fn ends_times_and_commits_are_seen_without_joining_the_group() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        let group = format!("group-of-{topic}");
        let offsets = Offsets::open(&node.config(), &topic, 2, &group, Isolation::Uncommitted).unwrap();
        assert_eq!(offsets.ranges().await.unwrap(), [0..0, 0..0]);
        assert_eq!(offsets.committed().await.unwrap(), [None, None]);

        node.append(&topic, 1, &["a", "b", "c"]).await;
        assert_eq!(offsets.ranges().await.unwrap(), [0..0, 0..3]);
        assert_eq!(offsets.at_time(0).await.unwrap(), [None, Some(0)]);
        assert_eq!(offsets.at_time(i64::MAX / 2).await.unwrap(), [None, None]);

        let mut consumer =
            Consumer::start(&node.config(), ConsumerOptions::new(group.clone(), &topic)).unwrap();
        for _ in 0..2 {
            let partition = consumer.next_assignment().await.unwrap().expect("an assignment");
            if partition.lease().partition() == 1 {
                partition.lease().commit(2, "noted").await.unwrap();
            }
        }
        assert_eq!(offsets.committed().await.unwrap(), [None, Some(2)]);
        consumer.close().await;
    });
}
