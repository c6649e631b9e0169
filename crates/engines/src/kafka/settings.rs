//! The node's settings, as Kafka reads them from a file.

/// Of the whole node: clients reach it at `port`, it reaches itself at `controller`.
pub(super) fn server_properties(port: u16, controller: u16) -> String {
    format!(
        "# Written at every start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=data

# One node: every internal topic has one replica.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# One node keeps the lead of its partitions, whether it was frozen for a while or is stopping.
broker.session.timeout.ms=3600000
controlled.shutdown.enable=false
broker.heartbeat.interval.ms=500
# An abandoned transaction holds back its readers until it is looked at; 10 s by default.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# Topics are made by the services, with their own limits; these bound them from above.
auto.create.topics.enable=false
message.max.bytes=41943040
replica.fetch.max.bytes=41943040
# Consumers trim what they have consumed; time alone deletes nothing (INV-2).
log.retention.ms=-1
log.retention.bytes=-1
offsets.retention.minutes=525600
log.segment.bytes=268435456

# A small machine.
num.partitions=1
num.network.threads=2
num.io.threads=4
background.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=4194304
group.initial.rebalance.delay.ms=0
"
    )
}

/// Of the node's controller alone, with sessions that end at once.
pub(super) fn controller_properties(controller: u16) -> String {
    format!(
        "# Written before a start; changes are lost.
process.roles=controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT
log.dirs=data
broker.session.timeout.ms=300
broker.heartbeat.interval.ms=100
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_name_the_ports_and_no_other_address_than_loopback() {
        let settings = server_properties(9092, 19093);
        assert!(settings.contains("advertised.listeners=PLAINTEXT://127.0.0.1:9092\n"));
        for settings in [settings, controller_properties(19093)] {
            assert!(settings.contains("controller.quorum.voters=1@127.0.0.1:19093\n"));
            assert_eq!(settings.matches("://").count(), settings.matches("://127.0.0.1:").count());
        }
    }
}
