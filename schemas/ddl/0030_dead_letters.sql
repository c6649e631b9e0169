-- What readers without leave to see the original bytes see of them, and whether the letter came of a replay.
ALTER TABLE {database}.dead_letters
    ADD COLUMN IF NOT EXISTS payload_preview String DEFAULT '' COMMENT 'Beginning of the original bytes as text, with secrets replaced; empty when they are no text.' CODEC(ZSTD(1)) AFTER payload_size,
    ADD COLUMN IF NOT EXISTS replay_of String DEFAULT '' COMMENT 'Dead letter (partition/offset in the dead-letter topic) whose replay died again; empty when a gateway accepted it.' CODEC(ZSTD(1)) AFTER payload_preview
