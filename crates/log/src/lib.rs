//! The only user of rdkafka: topics, producers, consumers.
