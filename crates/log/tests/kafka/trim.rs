//! Retention by the consumers: what is deleted, and what never is.

use fleetlog_log::{Admin, Consumer, ConsumerOptions, Trimmer};
use fleetlog_runtime::Clock;

use crate::node::on_kafka;

#[test]
fn only_what_is_settled_and_old_enough_is_deleted() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;
        let options = ConsumerOptions::new(format!("group-of-{topic}"), &topic);
        let mut consumer = Consumer::start(&node.config(), options).unwrap();
        let partition = consumer.next_assignment().await.unwrap().expect("an assignment");
        let lease = partition.lease();
        let admin = Admin::new(&node.config()).unwrap();
        let trimmer = |hours| Trimmer::new(admin.clone(), Clock::system(), hours);

        // Nothing is settled yet, so age does not matter.
        assert_eq!((lease.settled().await.unwrap(), trimmer(0).trim(&lease).await.unwrap()), (None, 0));
        lease.commit(2, "").await.unwrap();
        assert_eq!(trimmer(1).trim(&lease).await.unwrap(), 0, "settled, and too young");
        assert_eq!(lease.log_range().await.unwrap(), 0..3);
        assert_eq!(trimmer(0).trim(&lease).await.unwrap(), 2);
        assert_eq!(lease.log_range().await.unwrap(), 2..3);
        assert_eq!(trimmer(0).trim(&lease).await.unwrap(), 0, "the rest is not settled");
        drop((partition, lease));
        consumer.close().await;
    });
}
