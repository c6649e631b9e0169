-- What merging records needs where a source's channels share no id of a call, or report one thing in pieces.
ALTER TABLE {database}.events
    ADD COLUMN IF NOT EXISTS call_family LowCardinality(String) DEFAULT '' COMMENT 'Family of records whose channels share no id of a call (codex, gemini); empty where llm_call_key is shared.' AFTER llm_call_key,
    ADD COLUMN IF NOT EXISTS precedence UInt32 DEFAULT 0 COMMENT 'Among the records of one family, channel and turn that state usage, those of the lowest precedence count.' CODEC(ZSTD(1)) AFTER call_family,
    ADD COLUMN IF NOT EXISTS revision Int64 DEFAULT 0 COMMENT 'Order among the records of one thing that is reported in pieces or again: time of writing in nanoseconds or a line number. The highest wins field by field; 0 where the record is whole.' CODEC(ZSTD(1)) AFTER precedence
