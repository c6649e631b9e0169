-- A score may name the observation that it judges and not its trace. The scores of a trace's observations are then found by
-- their ids alone, thousands at once, for which a bloom filter is of no use. Other events count as one value here, so that
-- the index costs an insert next to nothing. It is there for parts written from now on; of older ones the type is read.
ALTER TABLE {database}.events
    ADD INDEX IF NOT EXISTS judged_span if(type = 'score', span_id, '') TYPE set(0) GRANULARITY 1
